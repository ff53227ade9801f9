//! How shapes follow for operations that rearrange tensors, and for attention; the others stand beside
//! their operations in [`op`](super::op).

/// Two tensors one after the other along a dimension.
pub(super) fn concat(a: &[usize], b: &[usize], axis: usize) -> Result<Vec<usize>, String> {
    let fits =
        a.len() == b.len() && axis < a.len() && (0..a.len()).all(|i| i == axis || a[i] == b[i]);
    if !fits {
        return Err(format!("cannot put {a:?} and {b:?} together along dimension {axis}"));
    }
    let mut y = a.to_vec();
    y[axis] += b[axis];
    Ok(y)
}

/// A stretch of a dimension.
pub(super) fn slice(
    x: &[usize],
    axis: usize,
    start: usize,
    len: usize,
) -> Result<Vec<usize>, String> {
    let end = start.checked_add(len);
    if axis >= x.len() || end.is_none_or(|end| end > x[axis]) {
        return Err(format!("no {len} from {start} on along dimension {axis} of {x:?}"));
    }
    let mut y = x.to_vec();
    y[axis] = len;
    Ok(y)
}

/// The opposite of [`slice`]: the dimension becomes `len` long.
pub(super) fn unslice(
    x: &[usize],
    axis: usize,
    start: usize,
    len: usize,
) -> Result<Vec<usize>, String> {
    let end = x.get(axis).and_then(|stretch| stretch.checked_add(start));
    if end.is_none_or(|end| end > len) {
        return Err(format!(
            "{x:?} does not fit into {len} from {start} on along dimension {axis}"
        ));
    }
    let mut y = x.to_vec();
    y[axis] = len;
    Ok(y)
}

/// The last two of three dimensions exchanged.
pub(super) fn transpose(x: &[usize]) -> Result<Vec<usize>, String> {
    match *x {
        [n, a, b] => Ok(vec![n, b, a]),
        _ => Err(format!("transpose takes three dimensions, found {x:?}")),
    }
}

/// Rows of a table by ids of any shape.
pub(super) fn embedding(ids: &[usize], table: &[usize]) -> Result<Vec<usize>, String> {
    match *table {
        [rows, d] if rows > 0 && d > 0 => Ok([ids, &[d]].concat()),
        _ => Err(format!("embedding takes a table [rows, features], found {table:?}")),
    }
}

/// Result and log-sum-exp of attention over `qkv` of `[n, t, 3d]`.
pub(super) fn attention(qkv: &[usize], heads: usize) -> Result<[Vec<usize>; 2], String> {
    let &[n, t, width] = qkv else {
        return Err(format!("attention takes [n, tokens, 3 × features], found {qkv:?}"));
    };
    let d = width / 3;
    if !width.is_multiple_of(3) || heads == 0 || d == 0 || !d.is_multiple_of(heads) {
        return Err(format!(
            "attention over rows of {width} takes queries, keys and values of the same width, divided into {heads} heads"
        ));
    }
    Ok([vec![n, t, d], vec![n, heads, t]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_or_say_why_not() {
        assert_eq!(concat(&[2, 1, 5], &[2, 3, 5], 1), Ok(vec![2, 4, 5]));
        assert!(concat(&[2, 1, 5], &[2, 3, 4], 1).is_err() && concat(&[2], &[2], 1).is_err());
        assert_eq!(slice(&[2, 4], 1, 1, 3), Ok(vec![2, 3]));
        assert!(slice(&[2, 4], 1, 2, 3).is_err() && slice(&[2], 0, usize::MAX, 2).is_err());
        assert_eq!(unslice(&[2, 3], 1, 1, 4), Ok(vec![2, 4]));
        assert!(unslice(&[2, 3], 1, 2, 4).is_err() && unslice(&[2], 1, 0, 4).is_err());
        assert_eq!(transpose(&[2, 3, 4]), Ok(vec![2, 4, 3]));
        assert!(transpose(&[2, 3]).is_err());
        assert_eq!(embedding(&[2, 5], &[9, 4]), Ok(vec![2, 5, 4]));
        assert!(embedding(&[2], &[9]).is_err() && embedding(&[2], &[0, 4]).is_err());
        assert_eq!(attention(&[2, 7, 24], 4), Ok([vec![2, 7, 8], vec![2, 4, 7]]));
        for (width, heads) in [(25, 4), (24, 3), (24, 0), (0, 1)] {
            assert!(attention(&[2, 7, width], heads).is_err(), "{width} {heads}");
        }
    }
}
