// Whole numbers of ID_BITS bits (8, 16 or 32), as many as fit in each word of IDS.

override ID_BITS: u32;

fn id_of(word: u32, i: u32) -> u32 {
    if ID_BITS == 32u {
        return word;
    }
    return (word >> (i * ID_BITS % 32u)) & ((1u << (ID_BITS % 32u)) - 1u);
}

// The word that holds id `i`.
fn word_of(i: u32) -> u32 {
    return i / (32u / ID_BITS);
}
