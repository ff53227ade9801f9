// choose_token: logits[ROWS, VOCABULARY], choices[ROWS, CHOICE + WORDS] | chosen[ROWS, 2 + 2 * ALTERNATIVES],
// counts[TEXTS, VOCABULARY]. A workgroup has a row. The first words of its choice say how to choose, the others which
// tokens were there before, a bit each. What limits the choice becomes a least key, found bit by bit, so that nothing is
// sorted.

override ROWS: u32;
override VOCABULARY: u32;
override WORDS: u32;
override TEXTS: u32;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read> choices: array<u32>;
@group(0) @binding(2) var<storage, read_write> chosen: array<f32>;
@group(0) @binding(3) var<storage, read_write> counts: array<f32>;

const EXPONENT: u32 = 0x7f800000u;
const LOWEST: f32 = -3.4028235e38;
const HIGHEST: f32 = 3.4028235e38;
const TOLD: u32 = 2u + 2u * ALTERNATIVES;

// Where a choice begins, and what it says.
var<private> choice_at: u32;
var<private> logits_at: u32;
var<private> temperature: f32;
var<private> penalty: f32;
// What a token loses that was made before, and for each time; whether that takes counts, and where they begin.
var<private> presence: f32;
var<private> frequency: f32;
var<private> is_counted: bool;
var<private> counts_at: u32;

// A logit as the choice sees it.
fn seen_logit(token: u32) -> f32 {
    var logit = logits[logits_at + token];
    let before = choices[choice_at + CHOICE + token / 32u] >> (token % 32u) & 1u;
    if penalty != 1.0 && before == 1u {
        logit = select(logit * penalty, logit / penalty, logit > 0.0);
    }
    if is_counted {
        let count = counts[counts_at + token];
        logit -= select(0.0, presence + frequency * count, count > 0.0);
    }
    return select(logit / temperature, logit, temperature == 0.0);
}

// A number that is larger where a float is larger.
fn key_of(x: f32) -> u32 {
    // No key tells 0 from -0.
    let bits = bitcast<u32>(x + 0.0);
    return select(bits | 0x80000000u, ~bits, bits >> 31u == 1u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let row = flat_group(grid);
    if row >= ROWS {
        return;
    }
    logits_at = row * VOCABULARY;
    choice_at = row * (CHOICE + WORDS);
    temperature = bitcast<f32>(choices[choice_at]);
    let top_k = choices[choice_at + 1u];
    let top_p = bitcast<f32>(choices[choice_at + 2u]);
    let min_p = bitcast<f32>(choices[choice_at + 3u]);
    penalty = bitcast<f32>(choices[choice_at + 4u]);
    let drawn = bitcast<f32>(choices[choice_at + 5u]);
    presence = bitcast<f32>(choices[choice_at + 6u]);
    frequency = bitcast<f32>(choices[choice_at + 7u]);
    let place = choices[choice_at + 9u];
    let is_first = choices[choice_at + 10u] != 0u;
    let counts_any = (presence != 0.0 || frequency != 0.0) && place < TEXTS;
    is_counted = counts_any && !is_first;
    counts_at = select(0u, place * VOCABULARY, counts_any);

    var wrong = 0.0;
    var highest = LOWEST;
    var peak = LOWEST;
    for (var token = grid.lane; token < VOCABULARY; token += LANES) {
        let logit = logits[logits_at + token];
        if (bitcast<u32>(logit) & EXPONENT) == EXPONENT {
            wrong = 1.0;
        }
        highest = max(highest, logit);
        peak = max(peak, seen_logit(token));
    }
    wrong = row_max(wrong, grid);
    highest = row_max(highest, grid);
    peak = row_max(peak, grid);

    // The first of the most probable tokens, as how far it stands from the end.
    var first = 0.0;
    var total = 0.0;
    for (var token = grid.lane; token < VOCABULARY; token += LANES) {
        total += exp(logits[logits_at + token] - highest);
        if seen_logit(token) == peak {
            first = max(first, f32(VOCABULARY - token));
        }
    }
    let all = row_sum(total, grid);
    first = row_max(first, grid);
    var token = VOCABULARY - u32(max(first, 1.0));

    var least = 0u;
    if temperature != 0.0 && top_k > 0u && top_k < VOCABULARY {
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            var count = 0.0;
            for (var other = grid.lane; other < VOCABULARY; other += LANES) {
                count += select(0.0, 1.0, key_of(seen_logit(other)) >= (least | bit));
            }
            if row_sum(count, grid) >= f32(top_k) {
                least |= bit;
            }
        }
    }
    if temperature != 0.0 && top_p < 1.0 {
        let among = row_sum(mass(least, peak, grid), grid);
        var enough = 0u;
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            let share = row_sum(mass(max(least, enough | bit), peak, grid), grid);
            if share >= top_p * among {
                enough |= bit;
            }
        }
        least = max(least, enough);
    }
    if temperature != 0.0 {
        // Each lane has tokens that follow each other, so that the draw falls into them in their order.
        let each = (VOCABULARY + LANES - 1u) / LANES;
        let begin = min(grid.lane * each, VOCABULARY);
        let end = min(begin + each, VOCABULARY);
        var own = 0.0;
        for (var other = begin; other < end; other++) {
            own += power(other, peak, least, min_p);
        }
        var before = 0.0;
        var kept = own;
        if LANES > 1u {
            workgroupBarrier();
            shared_values[grid.lane] = own;
            workgroupBarrier();
            kept = 0.0;
            for (var lane = 0u; lane < LANES; lane++) {
                before = select(before, kept, lane == grid.lane);
                kept += shared_values[lane];
            }
        }
        let at = drawn * kept;
        var mine = 0.0;
        if own > 0.0 && before <= at && at < before + own {
            var left = at - before;
            for (var other = begin; other < end; other++) {
                let weight = power(other, peak, least, min_p);
                if left >= 0.0 && weight > 0.0 {
                    mine = f32(VOCABULARY - other);
                }
                left -= weight;
            }
        }
        mine = row_max(mine, grid);
        // Rounding may leave the end of the last one to nobody.
        token = select(token, VOCABULARY - u32(mine), mine > 0.0);
    }
    if grid.lane == 0u {
        tell(row * TOLD, token, wrong > 0.0, highest, all);
    }
    let asked = min(choices[choice_at + 8u], min(ALTERNATIVES, VOCABULARY));
    let told = select(asked, 0u, wrong > 0.0);
    for (var other = told + grid.lane; other < ALTERNATIVES; other += LANES) {
        tell(row * TOLD + 2u + 2u * other, 0u, true, highest, all);
    }
    // Each lane has its own most probable token, until that is the one that is told.
    var own = VOCABULARY;
    if told > 0u {
        own = most_probable(HIGHEST, 0u, grid);
    }
    for (var other = 0u; other < told; other++) {
        var logit = LOWEST;
        if own < VOCABULARY {
            logit = logits[logits_at + own];
        }
        let best = row_max(logit, grid);
        var mine = 0.0;
        if own < VOCABULARY && logit == best {
            mine = f32(VOCABULARY - own);
        }
        let next = VOCABULARY - u32(max(row_max(mine, grid), 1.0));
        if own == next {
            tell(row * TOLD + 2u + 2u * other, next, false, highest, all);
            own = most_probable(best, next + 1u, grid);
        }
    }

    if counts_any && wrong == 0.0 {
        for (var other = grid.lane; is_first && other < VOCABULARY; other += LANES) {
            counts[counts_at + other] = select(0.0, 1.0, other == token);
        }
        if !is_first && grid.lane == 0u {
            counts[counts_at + token] += 1.0;
        }
    }
}

// Tells a token and the logarithm of its probability, or none.
fn tell(at: u32, token: u32, is_none: bool, highest: f32, all: f32) {
    let log_probability = logits[logits_at + token] - highest - log(all);
    chosen[at] = select(f32(token), -1.0, is_none);
    chosen[at + 1u] = select(log_probability, 0.0, is_none);
}

// The most probable token of a lane of those with less than this logit, or the same and no lower number; VOCABULARY if
// there is none.
fn most_probable(below: f32, begin: u32, grid: Grid) -> u32 {
    var best = VOCABULARY;
    var most = LOWEST;
    for (var token = grid.lane; token < VOCABULARY; token += LANES) {
        let logit = logits[logits_at + token];
        let is_left = logit < below || (logit == below && token >= begin);
        if is_left && (best == VOCABULARY || logit > most) {
            best = token;
            most = logit;
        }
    }
    return best;
}

// The weight of a token among those that are left: its probability over the highest.
fn power(token: u32, peak: f32, least: u32, min_p: f32) -> f32 {
    let logit = seen_logit(token);
    let weight = exp(logit - peak);
    return select(0.0, weight, key_of(logit) >= least && weight >= min_p);
}

// What the tokens of a lane weigh whose keys are no less than `least`.
fn mass(least: u32, peak: f32, grid: Grid) -> f32 {
    var sum = 0.0;
    for (var token = grid.lane; token < VOCABULARY; token += LANES) {
        sum += power(token, peak, least, 0.0);
    }
    return sum;
}
