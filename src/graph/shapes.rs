//! How shapes follow for operations that rearrange tensors and look them up; [`infer`](super::infer) has the others.

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

/// Queries of `[.., heads · len]`, keys and values of `[.., kv_heads · len]`, and a table of `[rows, len]`, as one row each.
pub(super) fn rotary(
    q: &[usize],
    k: &[usize],
    v: &[usize],
    table: &[usize],
) -> Result<Vec<usize>, String> {
    let (&[n, t, width], &[.., kept], &[rows, len]) = (q, k, table) else {
        return Err(format!(
            "rotary takes queries [n, tokens, features] and a table [rows, features], found {q:?} and {table:?}"
        ));
    };
    let divides = |width: usize| width > 0 && width.is_multiple_of(len);
    if rows == 0 || len == 0 || len % 2 != 0 || !divides(width) || !divides(kept) {
        return Err(format!(
            "rotary by a table of {table:?} does not fit {q:?} and {k:?}: heads are of an even number of features"
        ));
    }
    if k != [n, t, kept] || v != k {
        return Err(format!("rotary found keys {k:?} and values {v:?} beside queries {q:?}"));
    }
    Ok(vec![n, t, width + 2 * kept])
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
        let table: &[usize] = &[9, 4];
        assert_eq!(rotary(&[2, 3, 8], &[2, 3, 4], &[2, 3, 4], table), Ok(vec![2, 3, 16]));
        for (q, k, table) in [
            ([2, 3, 6], [2, 3, 4], [9, 4]),
            ([2, 3, 8], [2, 4, 4], [9, 4]),
            ([2, 3, 9], [2, 3, 9], [9, 3]),
        ] {
            assert!(rotary(&q, &k, &k, &table).is_err(), "{q:?} {k:?} {table:?}");
        }
    }
}
