"""Where a long passage says what is asked, in any script."""

from __future__ import annotations

import pytest

from models.cross_encoder.passage_cut import PassageCut


@pytest.mark.parametrize(
    ("query", "filler", "answer"),
    [
        ("reset passwords", "The server logs every request twice. ", "Password resets need an administrator."),
        ("重置密码", "服务器启动失败时请先检查日志文件。", "重置密码需要管理员权限。"),
        ("รหัสผ่าน", "เครื่องพิมพ์กระดาษติดอยู่ข้างใน ", "การเปลี่ยนรหัสผ่านต้องใช้สิทธิ์"),
        ("Haftpflicht", "Das Fahrrad steht im Keller. ", "Die Haft\u00adpflicht deckt den Schaden."),
        ("STRASSE", "Der Hafen ist offen. ", "Die Straße ist gesperrt."),
        ("पासवर्ड", "प्रिंटर में काग़ज़ फँस गया है। ", "पासवर्ड बदलने के लिए सेटिंग खोलें।"),
    ],
)
def test_the_window_is_where_the_words_of_the_query_stand(query: str, filler: str, answer: str) -> None:
    passage = filler * 12 + answer + filler * 6
    characters = [(place, place + 1) for place in range(len(passage))]  # each a token
    cut = PassageCut.fit([filler * 3] * 9 + [passage])
    start = cut.start(cut.weights(query), passage, characters, 10, 2 * len(answer))
    place = passage.index(answer)
    assert start <= place + len(answer)
    assert start + 2 * len(answer) > place
    assert cut.start(cut.weights("xyz"), passage, characters, 10, 40) == 10
