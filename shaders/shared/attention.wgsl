// Where the parts of an attention lie. A row of qkv[n, T, (HEADS + 2 * KV_HEADS) * HEAD] holds the queries of all heads,
// then keys, then values, each of which HEADS / KV_HEADS neighbouring heads of queries share; a row of y and
// dy[n, T, HEADS * HEAD] holds all heads. PAIRS counts pairs of sample and head of queries; statistics are [PAIRS, T].
//
// Needs HEAD, the features of a head.

override T: u32;
override HEADS: u32;
override KV_HEADS: u32;
override PAIRS: u32;
// Factor on the scores.
override SCALE: f32;
// Whether a token attends only to those up to itself.
override CAUSAL: bool;

const QUERIES = 0u;
const KEYS = 1u;
const VALUES = 2u;

// How many heads of queries share keys and values. Those of one are neighbours, so pairs that share are as well.
fn group_size() -> u32 {
    return HEADS / KV_HEADS;
}

// The first feature of a pair's queries, keys or values of a token.
fn part_at(pair: u32, part: u32, token: u32) -> u32 {
    let head = pair % HEADS;
    var column = head;
    if part != QUERIES {
        column = HEADS + (part - KEYS) * KV_HEADS + head / group_size();
    }
    return ((pair / HEADS * T + token) * (HEADS + 2u * KV_HEADS) + column) * HEAD;
}

// The first feature of a pair's token in y and dy.
fn token_at(pair: u32, token: u32) -> u32 {
    return (((pair / HEADS) * T + token) * HEADS + pair % HEADS) * HEAD;
}

// Below every score, and so far that its exponential is 0.
const MASKED = -3.0e38;
