"""A release loaded for serving: implements `models.serving.protocol.ServedBundle`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.cascade.cascade import most_pairs
from models.contracts.rows import Candidate
from models.contracts.tiers import candidate_limits
from models.records.ledger import Release
from models.release.bundle import Bundle
from models.release.golden import GoldenComparison, GoldenQuery, compare_golden
from models.retrieval.dense_index import DenseIndex
from models.retrieval.encoder import Encoder
from models.retrieval.passage_filter import PassageFilter
from models.retrieval.retriever import HybridRetriever
from models.serving.batching import Batcher, Claim, CostModel
from models.serving.document_reading import READ_ALL, DocumentReading, TextTooLong, TokenCut
from models.serving.engines import Engines, LocalEngines, OpenEngines, reader_version, use_threads
from models.serving.model_files import ModelFiles
from models.serving.protocol import Ranking, ServedVersions
from models.serving.running_mean import ENCODING_WEIGHT, RunningMean
from models.serving.score_cache import ScoreCache, model_prefix
from models.serving.tiered_reranker import TieredReranker
from models.serving.words_bundle import LEAN_CHARACTERS, WordsBundle
from models.settings import ServingSettings, Settings
from models.store.artifacts import Artifact, ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from models.text.passage_text import CHARACTERS_PER_TOKEN

_ENCODE_SHARE = 0.4
"""Share of a request's budget that may go into embedding the caller's own texts."""
_ENCODE_BATCH = 16
_WARM_UP = 16
_MEASURED_LENGTHS = 256
"""Passages whose mean length stands for that of all, to predict the time of a request."""
_HASHED_CHARACTERS = 200_000
"""Characters of a request up to which it is worth to look which of its texts are passages, to predict its time."""
_WORD_CHARACTERS = 400_000
"""Characters that BM25 reads of the documents of a request with a budget: some 200 ms of work."""
_CHECKED_TOGETHER = 64
"""Texts whose length is checked before the time is looked at."""
_NO_LIMIT_MS = 1e9
_PUBLIC = PassageFilter()


def load_release(
    settings: Settings, release: Release, cache: ScoreCache | None = None, open_engines: OpenEngines = LocalEngines
) -> LoadedBundle:
    """Open, verify and load the bundle of a release, warmed. Raises `ArtifactError` if a file is missing or altered."""
    store = ArtifactStore.of(settings)
    artifact = store.open(RELEASE_CANDIDATE, release.bundle_version)
    return load_bundle(
        artifact,
        release_id=release.release_id,
        model_version=release.model_version,
        serving=settings.serving,
        cache=cache,
        open_engines=open_engines,
    )


def load_bundle(
    artifact: Artifact,
    *,
    release_id: str = "",
    model_version: str = "",
    serving: ServingSettings | None = None,
    cache: ScoreCache | None = None,
    open_engines: OpenEngines = LocalEngines,
) -> LoadedBundle:
    """Load a bundle from its artifact after comparing every file with its digest; scores are looked up in `cache`.

    `open_engines` says where the cross-encoders run; in this process when left out.
    """
    artifact.verify()
    bundle = Bundle.open(artifact)
    facts = bundle.facts
    versions = ServedVersions(
        release_id, artifact.data_version, model_version, facts.index_version, facts.corpus_version
    )
    digests = {tier.name: bundle.model_files(tier.name) for tier in bundle.calibration.models}
    models = {tier: model_prefix(files, facts.max_tokens, reader_version()) for tier, files in digests.items()}
    serving = serving or ServingSettings()
    every = {name: digest for files in digests.values() for name, digest in files.items()}
    engines = open_engines(ModelFiles(bundle.folder, facts.max_tokens, serving.threads, every))
    try:
        return LoadedBundle(bundle, versions, serving, cache, models, engines)
    except BaseException:
        engines.close()
        raise


class LoadedBundle(WordsBundle):
    """Models, indexes and passages of one bundle. Any number of threads may call it; one of its own runs the models.

    Indexes and passages are memory-mapped: a load makes no Python object per passage, and processes share the pages.
    """

    def __init__(
        self,
        bundle: Bundle,
        versions: ServedVersions,
        serving: ServingSettings | None = None,
        cache: ScoreCache | None = None,
        models: Mapping[str, bytes] | None = None,
        engines: Engines | None = None,
    ) -> None:
        serving = serving or ServingSettings()
        super().__init__(bundle, versions, serving)
        use_threads(serving.threads)
        folder, facts = bundle.folder, bundle.facts
        read = facts.settings.encoder.max_tokens
        # A service embeds a few texts at a time: what packs of them save is not worth the seconds to lay weights out.
        self._encoder = Encoder.load(folder / "encoder", read, device="cpu", precision="fp32")
        self._dense = DenseIndex.load(folder / "dense_index")
        self._retriever = HybridRetriever(
            self._encoder, self._dense, self._lexical, self._passages.table, facts.settings.index, bundle.first_stage
        )
        self._engines = engines or LocalEngines(ModelFiles(folder, facts.max_tokens, serving.threads, {}))
        scorers = self._engines.scorers
        self._token_cut = TokenCut(folder / next(iter(scorers)))
        samples = [("how is this used", text) for text in self._sample(_WARM_UP)]
        costs = {name: CostModel.measure(engine, samples) for name, engine in scorers.items()}
        self._encode_ms = RunningMean(self._measure_encoder(), ENCODING_WEIGHT)
        encode = next(iter(scorers.values())).encode
        self._frame_tokens = len(encode([("", "")])[0])
        self._most_tokens = max(facts.max_tokens, len(encode([("", "a " * facts.max_tokens)])[0]))
        sizes = [len(encoding) - self._frame_tokens for encoding in encode(samples)]
        self._tokens_per_character = sum(sizes) / max(sum(len(query) + len(text) for query, text in samples), 1)
        lengths = [len(text) for text in self._sample(_MEASURED_LENGTHS)]
        self._passage_characters = sum(lengths) / max(len(lengths), 1)
        self._batcher = Batcher(
            scorers, costs, batch_tokens=serving.batch_tokens, on_start=lambda: use_threads(serving.threads)
        )
        calibration = bundle.calibration
        self._early_exit = calibration.early_exit
        self._limits = candidate_limits(facts.settings.tiers)
        self._cache = cache
        self._models = models or {}
        self._reranker = TieredReranker(self._batcher, calibration, facts.settings.tiers, cache, self._models)
        if cache is not None:
            for model in self._models.values():
                cache.use(model)

    @property
    def outage(self) -> str:
        """Why the models cannot be asked now; empty when they can."""
        return self._engines.outage

    @property
    def golden(self) -> tuple[GoldenQuery, ...]:
        """Queries with the scores that the offline evaluation gave."""
        return self._bundle.golden

    def retrieve(self, query: str, top_k: int, passage_filter: PassageFilter | None = _PUBLIC) -> list[Candidate]:
        """First stage: at most `top_k` passages that pass the filter, by default the public ones; None lifts it."""
        return self._retriever.retrieve(query, top_k, passage_filter)

    def rank_documents(
        self,
        query: str,
        documents: Sequence[str],
        budget_ms: float,
        claim: Claim | None = None,
        reading: DocumentReading = READ_ALL,
    ) -> Ranking:
        """Rank the caller's own texts; `Ranked.index` is the position in `documents`.

        Texts that are passages of the corpus use their stored embedding; the others are embedded while a share of the
        budget lasts, those with the best BM25 score first. Without a budget nothing is embedded: BM25 alone orders
        them, and of equal scores the caller's order. Of each text `serving.document_characters` are read, by BM25 fewer
        where there are many. Where `reading` limits the tokens, a budget that is too small for counting them has them
        estimated from the characters. Raises `TextTooLong` for what `reading` does not let it cut.
        """
        started = time.perf_counter()
        claim = claim or Claim()
        tokens = self._document_tokens(query, reading)
        if tokens is not None:
            documents = self._first_tokens(documents, tokens, started + _ENCODE_SHARE * budget_ms / 1000)
        rows = self._passages.rows_of(documents)
        if not reading.truncate and budget_ms > 0:
            self._check_lengths(query, documents, started + _ENCODE_SHARE * budget_ms / 1000)
        documents = [text[: self._document_characters] for text in documents]
        lexical = self._word_scores(query, documents, _WORD_CHARACTERS if budget_ms > 0 else LEAN_CHARACTERS)
        if budget_ms > 0:
            until = started + _ENCODE_SHARE * budget_ms / 1000
            dense, embedded = self._dense_scores(query, documents, rows, lexical, until, claim)
        else:
            dense, embedded = np.full(len(documents), self._mean_dense), 0
        spent = 1000 * (time.perf_counter() - started)
        ranking = self._rank_texts(
            query, documents, rows, dense, lexical, budget_ms - spent, claim, every_pair=reading.every_pair
        )
        reasons = [ranking.degraded_reason] if ranking.degraded_reason else []
        if embedded < len(documents):
            reasons.insert(0, f"{embedded} of {len(documents)} documents embedded inside the budget")
        stage_ms = {"first_stage": spent, **ranking.stage_ms}
        return Ranking(ranking.items, bool(reasons), "; ".join(reasons), stage_ms, ranking.truncated, ranking.tokens)

    def candidates_ms(self, query: str, count: int) -> float:
        """Predicted milliseconds of the models for `rank_candidates` of this many passages, without a limit."""
        return self._models_ms(query, [self._passage_characters] * count)

    def documents_ms(self, query: str, documents: Sequence[str], reading: DocumentReading = READ_ALL) -> float:
        """Predicted milliseconds of the models for `rank_documents`, without a limit; cheap for any texts."""
        lengths = list(map(len, documents))
        fresh = len(documents)
        if sum(lengths) <= _HASHED_CHARACTERS:
            fresh = int(np.count_nonzero(self._passages.rows_of(documents) < 0))
        if reading.tokens is not None:
            most = self._characters_of(reading.tokens)
            lengths = [min(length, most) for length in lengths]
        return self._encode_ms.value * fresh + self._models_ms(query, lengths, reading.every_pair)

    def reproduce_golden(self, tolerance: float) -> GoldenComparison:
        """Rank the golden queries again, without a deadline, and compare with the stored scores."""
        golden = self.golden
        scores = []
        for entry in golden:
            ranking = self.rank_candidates(
                entry.query, self.retrieve(entry.query, self._bundle.facts.candidates, None), _NO_LIMIT_MS
            )
            scores.append({str(item.passage_id): item.score for item in ranking.items})
        return compare_golden(golden, scores, tolerance)

    def close(self) -> None:
        """End the thread of the models, drop them and the indexes; no call follows."""
        self._batcher.close()
        self._engines.close()
        if self._cache is not None:
            for model in self._models.values():
                self._cache.release(model)
        del self._batcher
        del self._reranker, self._retriever, self._dense, self._lexical, self._encoder

    def _sample(self, count: int) -> list[str]:
        """The texts of passages from all over the corpus, at most `count`."""
        step = max(len(self._passages) // count, 1)
        return [self._passages.text(row) for row in range(0, len(self._passages), step)[:count]]

    def _measure_encoder(self) -> float:
        """Milliseconds of embedding one text, after a warm-up."""
        texts = self._sample(_ENCODE_BATCH)
        blank = [""] * len(texts)
        self._encoder.encode_passages(blank, texts, _ENCODE_BATCH)
        started = time.perf_counter()
        self._encoder.encode_passages(blank, texts, _ENCODE_BATCH)
        return 1000 * (time.perf_counter() - started) / max(len(texts), 1)

    def _document_tokens(self, query: str, reading: DocumentReading) -> int | None:
        """Tokens that are read of a document; None where it is the model that limits them."""
        limits = [] if reading.tokens is None else [reading.tokens]
        if reading.pair_tokens is not None:
            taken = len(self._batcher.encode(next(iter(self._engines.scorers)), [(query, "")])[0])
            limits.append(max(reading.pair_tokens - taken, 1))
        return min(limits, default=None)

    def _characters_of(self, tokens: int) -> int:
        """Characters that hold so many tokens, by the mean of the corpus."""
        return round(tokens / max(self._tokens_per_character, 1 / CHARACTERS_PER_TOKEN))

    def _first_tokens(self, documents: Sequence[str], tokens: int, until: float) -> list[str]:
        """The first `tokens` of each text, counted until then, estimated from there on."""
        most = self._characters_of(tokens)
        return self._token_cut.cut(documents, tokens, until, lambda text: text[:most])

    def _check_lengths(self, query: str, documents: Sequence[str], until: float) -> None:
        """Raise `TextTooLong` for the first text that the model would not read whole, of those looked at in time."""
        tier = next(iter(self._engines.scorers))
        for start in range(0, len(documents), _CHECKED_TOGETHER):
            if start and time.perf_counter() >= until:
                break
            part = documents[start : start + _CHECKED_TOGETHER]
            for index, encoding in enumerate(self._batcher.encode(tier, [(query, text) for text in part]), start):
                if encoding.cut or len(documents[index]) > self._document_characters:
                    message = f"the text and the query are longer than the {self._most_tokens} tokens that are read"
                    raise TextTooLong(message, "Send a shorter text, or let it be cut", index)

    def _models_ms(self, query: str, characters: Sequence[float], every_pair: bool = False) -> float:
        """Predicted milliseconds of all models for the query with texts of so many characters each."""
        room = self._most_tokens - self._frame_tokens
        asked = min(len(query) * self._tokens_per_character, room / 2)
        read = np.minimum(np.array(characters) * self._tokens_per_character, room - asked)
        tokens = float(read.mean()) + asked + self._frame_tokens
        limits = dict.fromkeys(self._limits, len(characters)) if every_pair else self._limits
        pairs = most_pairs(len(characters), self._early_exit, limits)
        return sum(self._batcher.predict(name, round(number * tokens)) for name, number in pairs.items())

    def _dense_scores(
        self,
        query: str,
        documents: Sequence[str],
        rows: NDArray[np.int64],
        lexical: np.ndarray,
        until: float,
        claim: Claim,
    ) -> tuple[np.ndarray, int]:
        """Cosine of the query with each document, and for how many it was computed; the rest get the mean of
        the corpus. `rows` [n] are the passages that documents are, -1 where they are none."""
        vector = self._encoder.encode_queries([query])
        scores = np.full(len(documents), np.nan, dtype=np.float64)
        stored = np.flatnonzero(rows >= 0)
        if len(stored):
            scores[stored] = self._dense.score(vector, rows[None, stored])[0]
        fresh = sorted(np.flatnonzero(rows < 0).tolist(), key=lambda index: (-lexical[index], index))
        for start in range(0, len(fresh), _ENCODE_BATCH):
            batch = fresh[start : start + _ENCODE_BATCH]
            vectors = self._batcher.compute(
                lambda batch=batch: self._embed([documents[index] for index in batch]),
                self._encode_ms.value * len(batch),
                until,
                claim,
            ).result()
            if vectors is None:
                if not start and not claim.withdrawn and time.perf_counter() < until:
                    self._encode_ms.lower()
                break
            scores[batch] = vectors @ vector[0]
        embedded = np.isfinite(scores)
        scores[~embedded] = self._mean_dense
        return scores, int(embedded.sum())

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dimensions], in the thread of the models."""
        started = time.perf_counter()
        vectors = self._encoder.encode_passages([""] * len(texts), texts, _ENCODE_BATCH)
        self._encode_ms.observe(1000 * (time.perf_counter() - started) / len(texts))
        return vectors
