//! How tokens attend to each other: the settings of attention and of its gradient, and the shapes that follow.

/// Which tokens attend to which, how heads share keys and values, and what training drops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attending {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys, and as many of values: each serves `heads / kv_heads` neighbouring heads of queries (Ainslie et al.,
    /// "GQA", 2023).
    pub kv_heads: usize,
    /// Whether a token attends only to those up to itself.
    pub causal: bool,
    /// Whether a token attends only to those from the first of its document on, which are then bound.
    pub documents: bool,
    /// Share of the weights that are dropped; above 0 the header is bound.
    pub dropout: f32,
    /// Distinguishes the layers of a model.
    pub salt: u32,
}

impl Attending {
    /// Attention of so many heads, each with keys and values of its own, that drops nothing.
    pub const fn new(heads: usize, causal: bool) -> Self {
        Self { heads, kv_heads: heads, causal, documents: false, dropout: 0.0, salt: 0 }
    }

    /// How many heads of queries share keys and values.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Inputs that are bound behind those that always are.
    pub fn optional_inputs(&self) -> usize {
        usize::from(self.documents) + usize::from(self.dropout > 0.0)
    }

    /// Shapes of result and log-sum-exp over `qkv` of `[n, t, (heads + 2 kv_heads) · len]`.
    pub(super) fn shapes(&self, qkv: &[usize]) -> Result<[Vec<usize>; 2], String> {
        let &[n, t, width] = qkv else {
            return Err(format!("attention takes [n, tokens, features], found {qkv:?}"));
        };
        let len = head_len(width, self.heads, self.kv_heads)?;
        if self.documents && !self.causal {
            return Err("attention within documents is causal".into());
        }
        Ok([vec![n, t, self.heads * len], vec![n, self.heads, t]])
    }
}

/// Features of a head in rows of `width`, which hold so many heads of queries, and of keys and of values.
pub fn head_len(width: usize, heads: usize, kv_heads: usize) -> Result<usize, String> {
    let parts = heads + 2 * kv_heads;
    if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(format!(
            "found {heads} heads that share {kv_heads} of keys and values, which must divide them"
        ));
    }
    if width == 0 || !width.is_multiple_of(parts) {
        return Err(format!(
            "attention over rows of {width} takes {heads} heads of queries and twice {kv_heads} of keys and values"
        ));
    }
    Ok(width / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_or_say_why_not() {
        let how = |heads, kv_heads| Attending { kv_heads, ..Attending::new(heads, true) };
        assert_eq!(how(4, 4).shapes(&[2, 7, 24]), Ok([vec![2, 7, 8], vec![2, 4, 7]]));
        assert_eq!(how(4, 2).shapes(&[2, 7, 24]), Ok([vec![2, 7, 12], vec![2, 4, 7]]));
        for (width, heads, kv_heads) in
            [(25, 4, 4), (24, 3, 3), (24, 0, 0), (24, 4, 0), (0, 1, 1), (28, 3, 2), (24, 1, 2)]
        {
            let found = how(heads, kv_heads).shapes(&[2, 7, width]);
            assert!(found.is_err(), "{width} {heads} {kv_heads}");
        }
        let both_ways = Attending { documents: true, ..Attending::new(1, false) };
        assert!(both_ways.shapes(&[1, 1, 3]).is_err());
    }
}
