"""Talks to a server through OpenAI's own library: ADDRESS KEY EXPECTED, the text that greedily follows "To be"."""

import asyncio
import sys

import openai

address, key, expected = sys.argv[1:]
client = openai.OpenAI(base_url=address, api_key=key, max_retries=0)

assert [model.id for model in client.models.list()] == ["small"]
asked = dict(model="small", prompt="To be", max_tokens=12, temperature=0)
whole = client.completions.create(**asked, logprobs=0)
assert whole.choices[0].text == expected, whole
assert whole.choices[0].finish_reason == "length"
assert len(whole.choices[0].logprobs.token_logprobs) == 12
assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 12)

pieces = client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
pieces = list(pieces)
assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == expected
assert pieces[-1].usage.total_tokens == 17

chat = dict(model="small", messages=[{"role": "user", "content": "Hi"}], max_tokens=8, temperature=0)
answer = client.chat.completions.create(**chat)
assert answer.choices[0].message.role == "assistant"
deltas = client.chat.completions.create(**chat, stream=True)
assert "".join(delta.choices[0].delta.content or "" for delta in deltas) == answer.choices[0].message.content

# What else was probable: whole and streamed, in both shapes.
told = client.completions.create(**asked, logprobs=3).choices[0].logprobs
assert told.token_logprobs == whole.choices[0].logprobs.token_logprobs
for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
    # Greedily the first one is taken.
    assert len(top) == 3 and top[token] == logprob == max(top.values()), top
assert told.text_offset[0] == 0 and sorted(told.text_offset) == told.text_offset
pieces = client.completions.create(**asked, logprobs=3, stream=True)
assert [top for piece in pieces for top in piece.choices[0].logprobs.top_logprobs] == told.top_logprobs

said = client.chat.completions.create(**chat, logprobs=True, top_logprobs=20).choices[0].logprobs.content
assert len(said) == 8
for token in said:
    assert len(token.top_logprobs) == 20
    first = token.top_logprobs[0]
    assert (first.token, first.logprob, first.bytes) == (token.token, token.logprob, token.bytes), token
    falling = [other.logprob for other in token.top_logprobs]
    assert falling == sorted(falling, reverse=True)
deltas = client.chat.completions.create(**chat, logprobs=True, top_logprobs=20, stream=True)
pieces = [delta.choices[0].logprobs for delta in deltas]
assert [token for piece in pieces if piece for token in piece.content] == said

changed = client.completions.create(**asked, presence_penalty=2, frequency_penalty=2).choices[0].text
assert changed != expected
assert client.completions.create(**asked, presence_penalty=0, frequency_penalty=0).choices[0].text == expected

for wrong, kind in [
    (dict(asked, max_tokens=0), openai.BadRequestError),
    (dict(asked, logprobs=6), openai.BadRequestError),
    (dict(asked, presence_penalty=3), openai.BadRequestError),
    (dict(asked, model="large"), openai.NotFoundError),
    (dict(asked, prompt="x" * 100), openai.BadRequestError),
]:
    try:
        client.completions.create(**wrong)
    except kind as error:
        assert error.body["message"], error
    else:
        raise AssertionError(f"{wrong} was answered")
try:
    openai.OpenAI(base_url=address, api_key="wrong", max_retries=0).models.list()
except openai.AuthenticationError:
    pass
else:
    raise AssertionError("a wrong key was let in")


async def together():
    """Several at once, one of which leaves in the middle."""
    client = openai.AsyncOpenAI(base_url=address, api_key=key, max_retries=0)

    async def one(leaves):
        text = ""
        async with await client.completions.create(**dict(asked, stream=True)) as pieces:
            async for piece in pieces:
                text += piece.choices[0].text
                if leaves:
                    return
        assert text == expected, text

    await asyncio.gather(*(one(i == 3) for i in range(8)))


asyncio.run(together())
print("all as expected")
