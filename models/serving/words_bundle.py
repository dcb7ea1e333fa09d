"""A release by its words alone: what answers while its models are loaded, and what a loaded one answers without them.

Passages, BM25 and calibration are mapped in a fraction of a second, where the libraries of the models take several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.cascade.windows import EarlyExit
from models.contracts.rows import Candidate, Passage
from models.contracts.tiers import Tier
from models.corpus.mapped_passages import PASSAGES_FILE, TEXTS_FILE, MappedPassages
from models.records.ledger import Release
from models.release.bundle import CALIBRATION_FILE, FACTS_FILE, Bundle
from models.retrieval.fusion import FIRST_STAGE_FILE
from models.retrieval.lexical_index import LexicalIndex
from models.retrieval.passage_filter import FilterColumns, PassageFilter
from models.serving.batching import Batcher, Claim
from models.serving.document_reading import READ_ALL, DocumentReading
from models.serving.protocol import Ranking, ServedVersions
from models.serving.tiered_reranker import TieredReranker
from models.settings import AUTO, ServingSettings, Settings, chosen
from models.store.artifacts import ArtifactStore
from models.store.asset_names import RELEASE_CANDIDATE
from models.text.passage_text import CHARACTERS_PER_TOKEN, SEARCHED_PER_TOKEN

LEXICAL_INDEX = "lexical_index"
_FILES = (FACTS_FILE, CALIBRATION_FILE, FIRST_STAGE_FILE, PASSAGES_FILE, TEXTS_FILE, f"{LEXICAL_INDEX}/")
LEAN_CHARACTERS = 50_000
"""Characters that BM25 reads of the documents of a request without a budget: some 25 ms of work."""
_FEWEST_CHARACTERS = 100
"""Of each document at least."""
_PUBLIC = PassageFilter()


def load_words(settings: Settings, release: Release) -> WordsBundle:
    """Open a release for word search. Raises `ArtifactError` if a file that it reads is missing or altered."""
    artifact = ArtifactStore.of(settings).open(RELEASE_CANDIDATE, release.bundle_version)
    artifact.verify(_FILES)
    return WordsBundle(Bundle.open(artifact), ServedVersions.of(release), settings.serving)


class WordsBundle:
    """Passages and words of one bundle (`models.serving.protocol.ServedBundle`). Any number of threads may call it.

    Whatever the budget, it answers from the lean tier, as its models cannot be asked; where that asks for a cosine, it
    takes the mean of the corpus.
    """

    def __init__(self, bundle: Bundle, versions: ServedVersions, serving: ServingSettings) -> None:
        self.versions = versions
        folder, facts = bundle.folder, bundle.facts
        self._bundle = bundle
        self._passages = MappedPassages(folder)
        self._lexical = LexicalIndex.load(folder / LEXICAL_INDEX)
        self._document_characters = (
            SEARCHED_PER_TOKEN * facts.max_tokens
            if serving.document_characters == AUTO
            else chosen(serving.document_characters)
        )
        of_cosines = next(scorer for scorer in bundle.calibration.tiers.values() if "dense" in scorer.features)
        self._mean_dense = of_cosines.mean[of_cosines.features.index("dense")]
        without_models = replace(bundle.calibration, early_exit=EarlyExit.lean_alone())
        self._reranker = TieredReranker(Batcher({}, {}, batch_tokens=1), without_models, facts.settings.tiers)

    @property
    def candidates(self) -> int:
        """Passages of a query that it was evaluated with."""
        return self._bundle.facts.candidates

    @property
    def max_tokens(self) -> int:
        """Tokens that a cross-encoder reads of query and text together."""
        return self._bundle.facts.max_tokens

    @property
    def outage(self) -> str:
        """Why the models cannot be asked now; empty when they can."""
        return "the models are being loaded"

    def retrieve(self, query: str, top_k: int, passage_filter: PassageFilter | None = _PUBLIC) -> list[Candidate]:
        """At most `top_k` passages that share a word with the query and pass the filter, by default the public ones;
        None lifts it."""
        mask = None if passage_filter is None else self._columns.mask(passage_filter)
        rows, scores = self._lexical.top(self._lexical.scores(query), top_k, mask)
        places = self._lexical.passage_ids.order[rows]
        by_id = np.argsort(places)
        cosines, fused = np.full(len(rows), self._mean_dense), np.empty(len(rows))
        fused[by_id] = self._bundle.first_stage.scores([places], cosines, scores[by_id])
        documents = self._passages.table["document_id"]
        return [
            Candidate(
                row=int(rows[place]),
                passage_id=self._lexical.passage_ids[int(rows[place])],
                document_id=documents[int(rows[place])].as_py(),
                rank=rank,
                retriever_score=float(fused[place]),
                dense_score=self._mean_dense,
                lexical_score=float(scores[place]),
                retriever="lexical",
            )
            for rank, place in enumerate(np.lexsort((places, -fused)).tolist(), start=1)
        ]

    def rank_candidates(
        self, query: str, candidates: Sequence[Candidate], budget_ms: float, claim: Claim | None = None
    ) -> Ranking:
        """Rank retrieved passages; `Ranked.index` is the position in `candidates`."""
        ids = [candidate.passage_id for candidate in candidates]
        return self._reranker.rank(
            query,
            [self._passages.text(candidate.row) for candidate in candidates],
            ids,
            np.array([candidate.dense_score for candidate in candidates], dtype=np.float64),
            np.array([candidate.lexical_score for candidate in candidates], dtype=np.float64),
            np.array([candidate.retriever_score for candidate in candidates], dtype=np.float64),
            budget_ms,
            passage_ids=ids,
            claim=claim,
        )

    def rank_documents(
        self,
        query: str,
        documents: Sequence[str],
        budget_ms: float,
        claim: Claim | None = None,
        reading: DocumentReading = READ_ALL,
    ) -> Ranking:
        """Rank the caller's own texts by BM25, those of equal score as given; `Ranked.index` is the position
        in `documents`. Where `reading` limits the tokens, they are estimated from the characters."""
        if reading.tokens is not None:
            documents = [text[: reading.tokens * CHARACTERS_PER_TOKEN] for text in documents]
        rows = self._passages.rows_of(documents)
        lexical = self._word_scores(query, documents, LEAN_CHARACTERS)
        dense = np.full(len(documents), self._mean_dense)
        return self._rank_texts(query, documents, rows, dense, lexical, budget_ms, claim)

    def keep_order(self, documents: Sequence[str]) -> Ranking:
        """The caller's own texts in the order given, all with the score of a text of which nothing is known."""
        nothing = np.zeros(len(documents))
        dense, retriever = nothing + self._mean_dense, nothing
        return self._reranker.rank("", documents, _place_ids(documents), dense, nothing, retriever, 0.0)

    def candidates_ms(self, query: str, count: int) -> float:
        """Predicted milliseconds of the models for `rank_candidates` of this many passages, without a limit."""
        return 0.0

    def documents_ms(self, query: str, documents: Sequence[str], reading: DocumentReading = READ_ALL) -> float:
        """Predicted milliseconds of the models for `rank_documents`, without a limit; cheap for any texts."""
        return 0.0

    def min_answer_score(self, tier: Tier) -> float | None:
        """Score by a tier of the best passage below which none answers a question; None where the bundle has none."""
        threshold = self._bundle.calibration.answer_thresholds.get(tier)
        return None if threshold is None else threshold.score

    def passage(self, candidate: Candidate) -> Passage:
        """The passage that a candidate of `retrieve` is."""
        return self._passages.passage(candidate.row)

    def close(self) -> None:
        """Drop the index; no call follows."""
        del self._reranker, self._lexical

    @cached_property
    def _columns(self) -> FilterColumns:
        return FilterColumns(self._passages.table)

    def _word_scores(self, query: str, documents: Sequence[str], characters: int) -> NDArray[np.float64]:
        """BM25 [n] of texts, of which it reads so many characters together."""
        most = max(characters // max(len(documents), 1), _FEWEST_CHARACTERS)
        beginnings = [text[: min(most, self._document_characters)] for text in documents]
        return self._lexical.score(query, beginnings).astype(np.float64)

    def _rank_texts(
        self,
        query: str,
        documents: Sequence[str],
        rows: NDArray[np.int64],
        dense: NDArray[np.float64],
        lexical: NDArray[np.float64],
        budget_ms: float,
        claim: Claim | None,
        *,
        every_pair: bool = False,
    ) -> Ranking:
        """Rank the caller's own texts with their first-stage scores; `rows` [n] are the passages that they are."""
        known = [None if row < 0 else self._lexical.passage_ids[row] for row in rows.tolist()]
        return self._reranker.rank(
            query,
            documents,
            _place_ids(documents),
            dense,
            lexical,
            self._bundle.first_stage.scores_of_texts(dense, lexical),
            budget_ms,
            passage_ids=known,
            claim=claim,
            every_pair=every_pair,
        )


def _place_ids(documents: Sequence[str]) -> list[str]:
    """Ids that order the caller's texts as given."""
    return [f"{index:08d}" for index in range(len(documents))]
