"""Defaults that follow the corpus: what the settings leave to `auto`, chosen from its source, lengths and judgments.

How many tokens the models read and which, on how many pairs they train and how many candidates they rerank depends on
the corpus and on the time that there is. Each value is chosen once per corpus, from passages, training and development
queries alone, and kept with its reason as the artifact `index/corpus_defaults`. A value in the settings stands before
it. Test queries choose nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.contracts.rows import GIVEN
from models.contracts.tiers import DISTILLED_TIERS, LAST, MODEL_TIERS, TierSpec, distilled_tiers, released_tiers
from models.corpus.passage_table import PassageTable
from models.corpus.splits import sample_by_hash
from models.cross_encoder.architecture import token_limit
from models.cross_encoder.pair_tokenizer import PairTokenizer
from models.cross_encoder.passage_cut import PassageCut
from models.errors import ArtifactError
from models.retrieval.first_stage import RECALL_DEPTHS, recalls_in
from models.settings import AUTO, Settings, TrainingSettings, chosen
from models.store import asset_names as names
from models.store.durable_files import canonical_json
from models.text.passage_text import passage_text
from models.training.steps import CORPUS_DEFAULTS
from models.training.training_speed import TrainingSpeed, speed_key, speed_of
from models.weights import local_weights, weights_digest

if TYPE_CHECKING:
    from models.store.artifacts import Artifact, ArtifactStore

FILE = "corpus_defaults.json"

TOKENS = (64, 96, 128, 192, 256)
"""Lengths of a pair that are tried, shortest first."""
READ_SHARE = 0.75
"""Share of the query's words in judged passages that the models shall read. Of the default corpus 64 tokens read more,
and rank as 96 do (docs/decisions/0014-query-biased-truncation.md)."""
LARGE_PAIRS = (16_000, 32_000)
"""The least and the most pairs that are trained on where each training query gives one list. 16,000 are two minutes on
two cores with AMX; with 3,343 queries more of them showed little."""
COMPACT_SHARE = 0.5
"""Pairs of a distilled model as a share of the large one's."""
_FROM_THE_START = ("python-docs",)
"""Kinds of sources whose development queries are ranked better where the models read the start alone; SQuAD and SciFact
are ranked better by the query (docs/benchmarks/defaults.md)."""
RECALL_LOSS = 0.05
"""Recall that fewer candidates may lose. At 20 the development queries of the default corpus lose .077, at 50 .031, and
are ranked better by .011 (docs/benchmarks/defaults.md)."""

_MEASURED = 400
"""Queries on which lengths are measured; as many passages for each of them tell how common words are."""
_PASSAGES = 2000

MAX_TOKENS, CANDIDATES, LARGE = "training.max_tokens", "evaluation.candidates", f"training.{LAST.name}_pairs"
STUDENTS = tuple(f"training.{tier.name}_pairs" for tier in DISTILLED_TIERS)
TIER_CANDIDATES = tuple(tier.candidates_setting for tier in MODEL_TIERS)
CUT = "training.passage_cut"
KEYS = (MAX_TOKENS, CUT, LARGE, *STUDENTS, CANDIDATES, *TIER_CANDIDATES)
"""The settings that may be `auto` and are chosen here."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A value, and in a sentence why it is this one."""

    value: int | str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFacts:
    """What is known of a corpus before anything is trained.

    `read_share` is, by length of a pair, the share of the query's tokens in judged passages that a model reads, over
    `measured_queries` training and development queries; `passage_tokens` and `query_tokens` are medians. `recall` is
    the share of the relevant documents of `development_queries` queries among so many candidates. Queries are counted
    by kind.
    """

    passages: int
    documents: int
    passage_tokens: int
    query_tokens: int
    token_limit: int
    measured_queries: int
    read_share: Mapping[int, float]
    training_queries: Mapping[str, int]
    development_queries: Mapping[str, int]
    recall: Mapping[int, float]


def choose_cut(source: str) -> Choice:
    """`training.passage_cut`: what was measured for a kind of source on development queries."""
    if source in _FROM_THE_START:
        return Choice("start", f"the passages of {source} begin with what they are about")
    return Choice("query", f"a passage of {source} may say anywhere what is asked")


def choose_tokens(facts: CorpusFacts) -> Choice:
    """`training.max_tokens`: the fewest tokens that read `READ_SHARE` of what is asked."""
    tried = {tokens: share for tokens, share in facts.read_share.items() if tokens <= facts.token_limit}
    if not tried:
        tokens = min(TOKENS[0], facts.token_limit)
        return Choice(tokens, f"no training or development query has a judged passage to measure, so {tokens} it is")
    enough = [tokens for tokens, share in tried.items() if share >= READ_SHARE]
    tokens = min(enough, default=max(tried))
    fewer = max((other for other in tried if other < tokens), default=None)
    before = "" if fewer is None else f", {fewer} tokens {tried[fewer]:.2f}"
    return Choice(
        tokens,
        f"{tokens} tokens read {tried[tokens]:.2f} of the query's words that stand in the judged passages of"
        f" {facts.measured_queries} training and development queries{before}; {READ_SHARE:g} is asked for"
        f" (passages have a median of {facts.passage_tokens} tokens, queries of {facts.query_tokens})",
    )


def choose_pairs(
    facts: CorpusFacts, settings: TrainingSettings, distilled: Sequence[TierSpec], speed: TrainingSpeed | None
) -> dict[str, Choice]:
    """`training.large_pairs` and those of the `distilled` models, as far as they are `auto`.

    With a time budget, `speed` says how fast they train here; what is left after the pairs that the settings give is
    shared so that each student has `COMPACT_SHARE` of the large model's pairs.
    """
    students = [f"training.{tier.name}_pairs" for tier in distilled]
    wanted = {LARGE: settings.large_pairs, **{key: _value(settings, key) for key in students}}
    queries = min(sum(facts.training_queries.values()), settings.max_queries)
    of_list = 1 + settings.negatives
    available = queries * settings.draws * of_list
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts.training_queries.items())) or "no"
    given = f"{kinds} training queries give at most {available:,} pairs"
    shares = {LARGE: 1.0, **dict.fromkeys(students, COMPACT_SHARE)}
    if speed is not None:
        rates = {LARGE: speed.large, **dict.fromkeys(students, speed.student)}
        left = 60 * settings.minutes - sum(chosen(pairs) / rates[key] for key, pairs in wanted.items() if pairs != AUTO)
        cost = sum(shares[key] / rates[key] for key, pairs in wanted.items() if pairs == AUTO)
        most = max(left, 0.0) / cost if cost else 0.0
        of_students = f" (large) and {speed.student:.0f} (distilled)" if students else ""
        bounded = f"{settings.minutes:g} minutes at {speed.large:.0f}{of_students} pairs/s"
    else:
        least, at_most = LARGE_PAIRS
        most = float(min(max(queries * of_list, least), at_most))
        bounded = f"a list of {of_list} for each of {queries:,} queries, {least:,} to {at_most:,}"
    choices = {}
    for key, pairs in wanted.items():
        if pairs != AUTO:
            continue
        share = shares[key]
        count = int(share * min(most, available))
        count = max(count - count % of_list, min(of_list, available))
        why = given if available < most else bounded
        half = "" if key == LARGE else f"; a distilled model takes {share:g} of the large one's share"
        choices[key] = Choice(count, f"{count:,} pairs: {why}{half}")
    return choices


def choose_candidates(facts: CorpusFacts) -> Choice:
    """`evaluation.candidates`: the fewest of `RECALL_DEPTHS` that lose at most `RECALL_LOSS` of the recall of most."""
    first, deepest = RECALL_DEPTHS[0], RECALL_DEPTHS[-1]
    if not facts.recall:
        return Choice(first, f"no development query tells what is lost, so {first} it is")
    depth = next(depth for depth in RECALL_DEPTHS if facts.recall[depth] >= facts.recall[deepest] - RECALL_LOSS)
    held = ", ".join(f"{share:.3f} at {depth}" for depth, share in facts.recall.items())
    pseudo = "" if set(facts.development_queries) <= {GIVEN} else ", which are pseudo-queries and easier to find"
    return Choice(
        depth,
        f"recall on {sum(facts.development_queries.values())} development queries{pseudo}: {held}; {depth} candidates"
        f" lose at most {RECALL_LOSS:g}",
    )


def choose_defaults(facts: CorpusFacts, settings: Settings, speed: TrainingSpeed | None) -> dict[str, Choice]:
    """What `auto` is for each setting of `KEYS` that has it, by dotted key."""
    candidates = choose_candidates(facts)
    depth = int(candidates.value) if settings.evaluation.candidates == AUTO else chosen(settings.evaluation.candidates)
    choices = {MAX_TOKENS: choose_tokens(facts), CUT: choose_cut(settings.corpus.source), CANDIDATES: candidates}
    choices |= choose_pairs(facts, settings.training, distilled_tiers(settings.tiers), speed)
    choices |= {key: Choice(depth, f"evaluation.candidates is {depth}") for key in TIER_CANDIDATES}
    for tier in MODEL_TIERS:
        if tier not in released_tiers(settings.tiers):
            none = Choice(0, f"tiers.models has no {tier.name} model")
            choices |= {f"training.{tier.name}_pairs": none, tier.candidates_setting: none}
    return {key: choices[key] for key in KEYS if _value(settings, key) == AUTO}


def with_defaults(settings: Settings, corpus_defaults: Artifact) -> Settings:
    """The settings with the chosen numbers in place of `auto`.

    Raises `ArtifactError` where the numbers were chosen under other settings.
    """
    timed = _is_timed(settings)
    for key, value in _decisive(settings).items():
        made_with = corpus_defaults.manifest.settings.get(key)
        # How many tokens are needed depends on which are read.
        if made_with != value and (timed or key not in KEYS or key == CUT or value == AUTO):
            raise ArtifactError(
                f"index/corpus_defaults was made with {key} {made_with!r}, this run has {value!r}",
                "Materialize index/corpus_defaults, then what lies behind it.",
            )
    return _replaced(settings, corpus_defaults.read_json(FILE)["values"])


def without_corpus(settings: Settings) -> Settings:
    """The settings with the first of the numbers that are tried in place of `auto`: for what is made of several corpora
    at once."""
    tokens, depth = TOKENS[0], RECALL_DEPTHS[0]
    students = dict.fromkeys(STUDENTS, int(COMPACT_SHARE * LARGE_PAIRS[0]))
    values: dict[str, int | str] = {
        MAX_TOKENS: tokens,
        CUT: "query",
        LARGE: LARGE_PAIRS[0],
        **students,
        **dict.fromkeys((CANDIDATES, *TIER_CANDIDATES), depth),
    }
    return _replaced(settings, values)


def choices_of(corpus_defaults: Artifact) -> dict[str, Choice]:
    """What was chosen, by dotted key."""
    stored = corpus_defaults.read_json(FILE)
    return {key: Choice(value, stored["reasons"][key]) for key, value in stored["values"].items()}


def settings_in_force(store: ArtifactStore, settings: Settings) -> Settings:
    """`with_defaults` of the current choice, where a setting is `auto`."""
    if not any(_value(settings, key) == AUTO for key in KEYS):
        return settings
    return with_defaults(settings, store.require(names.CORPUS_DEFAULTS))


def make_corpus_defaults(
    store: ArtifactStore,
    settings: Settings,
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    evaluation_set: Artifact,
    first_stage: Artifact,
    log: Callable[[str], None] = lambda message: None,
) -> Artifact:
    """The defaults for a corpus. With `training.minutes` they depend on the speed of training, which is measured once
    for a store and these settings, and kept there: a second machine takes it over."""
    inputs = (passages, queries, judgments, evaluation_set, first_stage)
    timed, distilled = _is_timed(settings), distilled_tiers(settings.tiers)
    outside = {"weights": weights_digest(settings.training.base_model)}
    if timed:
        outside["speed"] = speed_key(settings.training, distilled)
    build = partial(choose, *inputs, settings, partial(speed_of, store, distilled))
    artifact = CORPUS_DEFAULTS.get_or_create(
        store, settings, build, inputs=inputs, outside=outside, values=_decisive(settings)
    )
    for key, choice in choices_of(artifact).items():
        log(f"{key} = {choice.value}: {choice.reason}")
    return artifact


def choose(
    passages: Artifact,
    queries: Artifact,
    judgments: Artifact,
    evaluation_set: Artifact,
    first_stage: Artifact,
    settings: Settings,
    speed: Callable[[pd.DataFrame, TrainingSettings], TrainingSpeed],
    folder: Path,
) -> dict[str, Any]:
    """Write corpus_defaults.json: values and reasons by dotted key, and the facts; return the values."""
    asked = queries.read_table("queries.parquet")
    table = PassageTable(passages.path("passages.parquet"))
    pairs = _judged_pairs(asked, judgments.read_table("judgments.parquet"), table)
    of_dev = evaluation_set.read_table("queries.parquet")
    cut = choose_cut(settings.corpus.source).value
    training = settings.training
    if training.passage_cut == AUTO:
        training = training.model_copy(update={"passage_cut": cut})
    facts = _facts(
        table,
        pairs,
        _by_kind(asked.loc[asked["split"] == "train"]),
        _by_kind(of_dev.loc[of_dev["split"] == "dev"]),
        recalls_in(first_stage.summary),
        training,
    )
    length = choose_tokens(facts).value if training.max_tokens == AUTO else chosen(training.max_tokens)
    timed = _is_timed(settings) and len(pairs) > 0
    read = training.model_copy(update={"max_tokens": length})
    choices = choose_defaults(facts, settings, speed(pairs, read) if timed else None)
    values = {key: choice.value for key, choice in choices.items()}
    reasons = {key: choice.reason for key, choice in choices.items()}
    written = {"values": values, "reasons": reasons, "facts": asdict(facts)}
    (folder / FILE).write_bytes(canonical_json(written))
    return values


def _decisive(settings: Settings) -> dict[str, Any]:
    """The settings that the choice depends on. What the settings give is in force as it is, whatever was chosen."""
    values = CORPUS_DEFAULTS.values(settings)
    if not _is_timed(settings):
        values.pop("training.pairs_per_second", None)
    return values


def _replaced(settings: Settings, values: Mapping[str, int | str]) -> Settings:
    """The settings with the values, by dotted key, in place of `auto`."""
    sections: dict[str, dict[str, int | str]] = {}
    for key in KEYS:
        if _value(settings, key) == AUTO:
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = values[key]
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=update) for name, update in sections.items()}
    )


def _is_timed(settings: Settings) -> bool:
    """Whether pairs are chosen by the time that they take."""
    keys = [f"training.{tier.name}_pairs" for tier in released_tiers(settings.tiers)]
    return settings.training.minutes > 0 and any(_value(settings, key) == AUTO for key in keys)


def _value(settings: Settings | TrainingSettings, key: str) -> Any:
    path = key.split(".") if isinstance(settings, Settings) else key.split(".")[1:]
    return reduce(getattr, path, settings)


def _by_kind(queries: pd.DataFrame) -> dict[str, int]:
    kinds = queries["kind"] if "kind" in queries else pd.Series(GIVEN, index=queries.index)
    return {str(kind): int(count) for kind, count in sorted(kinds.value_counts().items())}


def _judged_pairs(queries: pd.DataFrame, judgments: pd.DataFrame, passages: PassageTable) -> pd.DataFrame:
    """(`query_id`, `query`, `passage`) of a stable sample of the training and development queries: of each the judged
    passage that shares most words with it."""
    usable = queries.loc[queries["split"].isin(["train", "dev"]), ["query_id", "text"]]
    judged = judgments.loc[judgments["grade"] > 0].merge(usable, on="query_id").drop_duplicates("query_id")
    judged = sample_by_hash(judged, _MEASURED)
    wanted = set(judged["document_id"])
    rows = [table[table["document_id"].isin(wanted)] for _, table in passages.stream(["document_id", "title", "text"])]
    texts: dict[str, list[str]] = {}
    for row in pd.concat(rows).itertuples(index=False):
        texts.setdefault(str(row.document_id), []).append(passage_text(str(row.title), str(row.text)))
    pairs = []
    for row in judged.itertuples(index=False):
        words = set(str(row.text).lower().split())
        pieces = texts.get(str(row.document_id), [])
        if pieces:
            best = max(pieces, key=lambda piece: len(words & set(piece.lower().split())))
            pairs.append((str(row.query_id), str(row.text), best))
    return pd.DataFrame(pairs, columns=["query_id", "query", "passage"])


def _facts(
    passages: PassageTable,
    pairs: pd.DataFrame,
    training: Mapping[str, int],
    development: Mapping[str, int],
    recall: Mapping[int, float],
    settings: TrainingSettings,
) -> CorpusFacts:
    from transformers import AutoConfig, AutoTokenizer

    folder = str(local_weights(settings.base_model))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    limit = token_limit(AutoConfig.from_pretrained(folder, local_files_only=True))
    sample = _sample(passages)
    documents = len({name for _, table in passages.stream(["document_id"]) for name in table["document_id"]})
    texts = list(pairs[["query", "passage"]].itertuples(index=False, name=None))
    cut = PassageCut.fit(sample) if settings.passage_cut == "query" else None
    tried = [tokens for tokens in TOKENS if tokens <= limit]
    shares = {tokens: read_share(PairTokenizer(tokenizer, tokens, cut), texts) for tokens in tried} if texts else {}
    backend = PairTokenizer(tokenizer, TOKENS[0])
    return CorpusFacts(
        passages=passages.count,
        documents=documents,
        passage_tokens=_median([len(backend.tokens(text)) for text in sample]),
        query_tokens=_median([len(backend.tokens(text)) for text in pairs["query"]]),
        token_limit=limit,
        measured_queries=len(texts),
        read_share={tokens: round(share, 3) for tokens, share in shares.items() if share is not None},
        training_queries=training,
        development_queries=development,
        recall={depth: round(share, 4) for depth, share in recall.items()},
    )


def _sample(passages: PassageTable) -> list[str]:
    """Texts of a stable sample of the passages."""
    ids = pd.concat([table[["passage_id"]] for _, table in passages.stream([])], ignore_index=True)
    chosen_ids = sample_by_hash(ids, _PASSAGES, id_column="passage_id")["passage_id"]
    rows = passages.read(chosen_ids.tolist(), ["title", "text"])
    return list(map(passage_text, rows["title"], rows["text"]))


def read_share(pairs: PairTokenizer, texts: Sequence[tuple[str, str]]) -> float | None:
    """Mean share of the query's tokens in a passage that are in what `pairs` reads of it; None where none is in any.

    `texts` are (query, passage).
    """
    shares = []
    for (query, passage), encoding in zip(texts, pairs.encode(texts), strict=True):
        asked, text = pairs.tokens(query), set(pairs.tokens(passage))
        shared = text & set(asked)
        if not shared:
            continue
        read = Counter(encoding.ids.tolist())
        read.subtract(asked[: pairs.max_tokens // 2])
        shares.append(sum(read[token] > 0 for token in shared) / len(shared))
    return sum(shares) / len(shares) if shares else None


def _median(values: Sequence[int]) -> int:
    return int(pd.Series(values).median()) if values else 0
