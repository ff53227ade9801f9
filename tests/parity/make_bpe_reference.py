"""Makes bpe_reference.json: what Hugging Face's `tokenizers` (pip install tokenizers; 0.22) learns of the first 60,000 bytes
of tinyshakespeare, what it makes of some text, and, given the tokenizer.json that `inflight tokenize --train-bpe` left, that
it reads it and makes the same of that text.

    python tests/parity/make_bpe_reference.py [tokenizer.json]
"""

import json
import sys
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer, Tokenizer

ROOT = Path(__file__).parent
TEXTS = [
    "First Citizen:\nBefore we proceed any further, hear me speak.\n",
    " \n\n  don't café 日本 12345 😀\t",
    "the<|endoftext|>end",
]

text = (ROOT / "../../datasets/tinyshakespeare/input.txt").read_text()[:60_000]
learned = ByteLevelBPETokenizer()
learned.train_from_iterator([text], vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False)
model = json.loads(learned.to_str())["model"]
tokens = [learned.encode(text).ids for text in TEXTS]
if len(sys.argv) > 1:
    ours = Tokenizer.from_file(sys.argv[1])
    assert [ours.encode(text).ids for text in TEXTS] == tokens
    assert [ours.decode(ids, skip_special_tokens=False) for ids in tokens] == TEXTS
    print("the same tokens")
merges = [list(pair) for pair in model["merges"]]
reference = {"bytes": 60_000, "vocabulary": 600, "merges": merges, "texts": TEXTS, "tokens": tokens}
(ROOT / "bpe_reference.json").write_text(json.dumps(reference) + "\n")
