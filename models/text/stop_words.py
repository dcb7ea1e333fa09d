"""English words that say little: three lists, since each decides something else."""

from __future__ import annotations

FUNCTION_WORDS = frozenset(
    "a about after again all also am an and any are as at be been before being both but by can could did do does doing"
    " during each else for from had has have having he her here hers him his how i if in into is it its just me might"
    " mine more most must my no nor of off on once only or other our ours out over own same shall she should so some"
    " such than that the their theirs them then there these they this those through to too under until up upon us very"
    " was we were what when where whether which while who whom whose why will with within would you your yours".split()
)
"""Words of the closed classes: they give a question its form, not its matter (`models.text.near_duplicates`)."""

QUESTION_WORDS = frozenset(
    "a an and are as at be but by can could do does for from get has have how i if in into is it its may me my not of"
    " on or our should so such than that the their them then there these they this to use used using was we were what"
    " when where which who why will with would you your".split()
)
"""Words of questions that no sentence has to repeat to answer them (`models.serving.answer`)."""


INDEX_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this"
    " to was will with".split()
)
"""Words that no index has (`models.text.tokenize`): Lucene's English ones."""
