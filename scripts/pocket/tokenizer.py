"""The pocket model's SentencePiece vocabulary, made from the grammar's words, and the ids that Hugging Face's tokenizer and
moonkiln give for a text."""
import json
import math
import string
import struct
from collections import Counter

import sentencepiece

import grammar

EXTRA_IDS = 12
SPECIAL = {"additional_special_tokens": [f"<extra_id_{i}>" for i in range(EXTRA_IDS)], "eos_token": "</s>", "pad_token": "<pad>",
           "unk_token": "<unk>"}
EOS, UNKNOWN = 1, 2
LETTER_SCORE = -12.0  # below every word's, so that a known word is one piece


# Fields of a protobuf message: number << 3 | wire type, then a varint (0), length-delimited bytes (2) or a float (5).
def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def integer_field(number, n):
    return varint(number << 3) + varint(n)


def bytes_field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def piece(text, score, kind):
    content = bytes_field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + integer_field(3, kind)
    return bytes_field(1, content)


def make():
    """The bytes of a spiece.model: one piece for each word of the grammar, and letters for every other word in small letters."""
    counts = Counter(word for scene in grammar.scenes() for text in grammar.prompts(scene) for word in text.split())
    counts["the"] += 1
    total = sum(counts.values())
    normal, unknown, control = 1, 2, 3
    pieces = [piece("<pad>", 0, control), piece("</s>", 0, control), piece("<unk>", 0, unknown)]
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        pieces.append(piece("\u2581" + word, math.log(count / total), normal))
    pieces += [piece(text, LETTER_SCORE, normal) for text in ("\u2581", ".", *string.ascii_lowercase)]
    no_id = 2**64 - 1  # -1
    trainer = integer_field(3, 1) + integer_field(4, len(pieces)) + integer_field(40, UNKNOWN) + integer_field(41, no_id)
    trainer += integer_field(42, EOS) + integer_field(43, 0)
    normalizer = bytes_field(1, b"identity") + bytes_field(2, b"") + integer_field(3, 1) + integer_field(4, 1) + integer_field(5, 1)
    return b"".join(pieces) + bytes_field(2, trainer) + bytes_field(3, normalizer)


def write(folder, model):
    """The tokenizer's files in the Diffusers layout."""
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(model)
    config = {**SPECIAL, "extra_ids": EXTRA_IDS, "tokenizer_class": "T5Tokenizer", "clean_up_tokenization_spaces": True}
    for name, content in (("special_tokens_map.json", SPECIAL), ("tokenizer_config.json", config)):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


class Tokenizer:
    def __init__(self, model):
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        rows = self.pieces.get_piece_size() + EXTRA_IDS
        self.rows = rows + -rows % 64

    def ids(self, text):
        """Ids with the end token; a run of unknown characters is one id, as in Hugging Face's tokenizer."""
        out = []
        for id in self.pieces.encode(text):
            if id != UNKNOWN or out[-1:] != [UNKNOWN]:
                out.append(id)
        return [*out, EOS]
