"""A small SentencePiece model, and what the tokenizer makes of difficult prompts with it."""
import html
import io
import re
from types import SimpleNamespace

import ftfy
import sentencepiece
import transformers

from store import VERSIONS, save_json

CORPUS = """
a cat and a dog bake a cake together in a small kitchen while sunlight streams through the window
two boxers fight on a spotlit stage and the camera slowly moves around them
a white boat sails across the calm blue sea at sunset, gulls follow it
close-up of an old man reading a book by the fire, film grain, 35mm, shallow depth of field
the red train runs through a snowy forest; steam rises into the cold morning air
a child laughs and runs along the beach, waves break behind her
time-lapse of clouds over the mountains, then the stars come out (4k, 60 fps)
an astronaut walks on the moon and waves at the camera: slow motion, wide shot
what is this? it's a robot that doesn't sleep! "hello", said the robot.
city street at night, neon signs, rain & reflections on the wet ground
the horse gallops through the field, its mane moving in the wind
she opens the door and walks into a bright room full of flowers
猫在厨房里烤蛋糕，阳光透过窗户照进来。
一只白色的狗在海边奔跑，天空很蓝。
红色的火车穿过雪中的森林。静态,画面,细节,低质量
两个人在城市的夜晚走路,下雨了
Красная кошка сидит на окне. Le café est près de la forêt. Ein schöner Tag
0 1 2 3 4 5 6 7 8 9 10 16 24 480 720 832 1280
""".strip().splitlines()

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)

PROMPTS = [  # (class, prompt)
    ("plain", "a cat and a dog bake a cake"),
    ("plain", "Two boxers fight on a spotlit stage."),
    ("plain", "a"),
    ("plain", "."),
    ("plain", "camera: slow motion, wide shot (4k, 60 fps); \"hello\" & what's this?"),
    ("plain", "Le café est près de la forêt"),
    ("plain", "Красная кошка сидит на окне."),
    ("plain", "supercalifragilisticexpialidocious xqzzjkw"),
    ("plain", "a-b_c/d\\e|f@g#h$i%j^k*l+m=n~o`p[q]r{s}t<u>v"),
    ("empty", ""),
    ("empty", "   "),
    ("empty", "\n\t \u3000"),
    ("spaces", "  a  cat   on    a     mat  "),
    ("spaces", "a cat\non a\tmat\r\nat night"),
    ("spaces", "a\u00a0cat\u2003on\u3000a\u2028mat\u2029at\u0085night\u200ba\ufeffb"),
    ("spaces", "a\x0bcat\x0con a\x1cmat"),
    ("spaces", "a▁cat ▁on▁▁a mat"),
    ("chinese", "猫在厨房里烤蛋糕"),
    ("chinese", "一只白色的狗在海边奔跑，天空很蓝。"),
    ("chinese", NEGATIVE),
    ("chinese", "a 猫 and 一只狗 on the beach"),
    ("emoji", "a cat 😀 on a mat"),
    ("emoji", "😀😀😀"),
    ("emoji", "🐈‍⬛ 👨‍👩‍👧 🇩🇪 ☂️ ❤"),
    ("emoji", "cat😀dog 😀"),
    ("unknown", "a ᚠᚢᚦ cat ༀ༁"),
    ("unknown", "日本語のテキスト 한국어"),
    ("unknown", "ᚠ ᚢ ᚦ"),
    ("unknown", "ᚠcatᚢdogᚦ"),
    ("unknown", "\U0010ffff \ue000 a"),
    ("added", "<0x41> <0xF0> literal byte pieces"),
    ("entities", "salt &amp; pepper &lt;b&gt; &quot;x&quot; &#39;y&#39; &nbsp; &hearts;"),
    ("entities", "&amp;amp; &amp;lt; &amp;#x41; &amp;amp;amp;"),
    ("entities", "&copy &notit; &unknown; &#0; &#128; &#xD800; &#x110000; &;"),
    ("entities", "a &lt cat &gt dog &ampx"),
    ("fullwidth", "ＡＢＣ　１２３，（ｃａｔ）！？"),
    ("fullwidth", "ｱｲｳ ﾞ ￥ ￡ ～ ｜"),
    ("quotes", "“a cat” said ‘the dog’ „low“ «guillemets» ‹x› ′ ″"),
    ("quotes", "it’s a robot that doesn`t sleep… – — ‐ −"),
    ("ligature", "ﬁre ﬂower oﬃce ﬀ ﬆ Ĳ ǆ"),
    ("combining", "cafe\u0301 schön scho\u0308n A\u030a e\u0302\u0301"),
    ("combining", "\u0301a \u1100\u1161\u11a8 \u212b \u2126"),
    ("control", "a\x00b\x01c\x07d\x1be\x7ff\x9fg"),
    ("control", "\x1b[31mred\x1b[0m cat \x08\ufffc\ufeff\u200e\u202etext\u206a"),
    ("control", "a\ufffdb \ufdd0 \U000e0041"),
    ("mojibake", "the cafÃ© is nice â€” very"),
    ("mojibake", "l’humanitÃ© â€œquotedâ€\x9d"),
    ("mojibake", "doesn\x92t \x93quoted\x94"),
    ("long", " ".join(f"the cat walks into room {i}" for i in range(100))),
    ("long", " ".join(["cat"] * 511)),
    ("long", " ".join(["cat"] * 600)),
    ("long", "猫" * 700),
    ("long", "a" * 3000),
    ("added", "the cat<extra_id_7>"),
    ("added", "</s>"),
    ("added", "a cat</s> on <pad> <unk>"),
]
EXTRA_IDS = 12


def prompt_clean(text):
    """diffusers' pipelines/wan: prompt_clean, with ftfy installed."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean as clean

    cleaned = clean(text)
    assert cleaned == re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text))).strip()).strip()
    return cleaned


def make_tokenizer(out):
    folder = out / "tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3), model_writer=model, model_type="unigram", vocab_size=740,
        character_coverage=1.0, hard_vocab_limit=False, normalization_rule_name="identity", byte_fallback=True,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, num_threads=1, minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())

    from transformers.convert_slow_tokenizer import T5Converter

    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    source = SimpleNamespace(
        vocab_file=str(folder / "spiece.model"), _extra_ids=EXTRA_IDS,
        convert_tokens_to_ids=lambda token: sp.piece_to_id(token))
    backend = T5Converter(source).converted()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(EXTRA_IDS)])
    backend.save(str(folder / "tokenizer.json"))
    save_json(folder / "tokenizer_config.json", {
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(EXTRA_IDS)], "bos_token": "<s>",
        "clean_up_tokenization_spaces": True, "eos_token": "</s>", "extra_ids": EXTRA_IDS, "pad_token": "<pad>",
        "sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>"})

    prompts = []
    for kind, prompt in PROMPTS:
        cleaned = prompt_clean(prompt)
        ids = tokenizer(cleaned, truncation=True, max_length=512, add_special_tokens=True).input_ids
        prompts.append({"class": kind, "prompt": prompt, "cleaned": cleaned, "ids": ids,
                        "ids_byte_fallback": sp.encode(cleaned)[:511] + [1]})
    save_json(folder / "prompts.json", {
        "versions": VERSIONS, "pieces": sp.get_piece_size(), "extra_ids": EXTRA_IDS, "prompts": prompts})
    text = (folder / "prompts.json").read_text(encoding="utf-8")
    text = re.sub(r"\[\s+([\d,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)
    (folder / "prompts.json").write_text(text, encoding="utf-8")
    differing = sum(p["ids"] != p["ids_byte_fallback"] for p in prompts)
    print(f"tokenizer: {sp.get_piece_size()} pieces, {len(prompts)} prompts, {differing} differ with byte fallback")
