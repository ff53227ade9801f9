//! Rows of a table by their numbers, and the gradient of the table.
//!
//! Parts of the table go to threads, and each adds up the places of its rows in their order, so that no sum depends on
//! who makes it.

use rayon::prelude::*;

use super::call::{Call, Ids};
use super::parallel::{CHUNK, min_items, vectorized};
use super::real::Real;
use crate::graph::op::Op;

/// Parts of the table for the gradient: each reads all ids, which are few beside the numbers behind them.
const PARTS: usize = 64;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::Embedding => {
            let width = call.shape(1)[1];
            embedding(call.ids(0), call.real(1), width, call.out(0));
        }
        Op::EmbeddingGrad => {
            let width = call.out_shape(0)[1];
            embedding_grad(call.real(0), call.ids(1), width, call.out(0));
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// y\[i\] = table\[ids\[i\]\], rows of `width`; an id beyond the table reads its last row.
pub fn embedding<T: Real>(ids: Ids<'_>, table: &[T], width: usize, y: &mut [T]) {
    let last = table.len() / width - 1;
    let rows = y.par_chunks_mut(width).with_min_len(min_items(width)).enumerate();
    rows.for_each(|(i, y)| {
        let row = ids.get(i).min(last);
        y.copy_from_slice(&table[row * width..][..width]);
    });
}

/// dtable\[r\] = Σ dy\[i\] over all i with ids\[i\] = r, in ascending order of i.
pub fn embedding_grad<T: Real>(dy: &[T], ids: Ids<'_>, width: usize, dtable: &mut [T]) {
    let rows = dtable.len() / width;
    // Small tables are not worth dividing further.
    let part = rows.div_ceil(PARTS).max((CHUNK / 8).div_ceil(width));
    dtable.par_chunks_mut(part * width).enumerate().for_each(|(at, dtable)| {
        dtable.fill(T::ZERO);
        let first = at * part;
        let end = first + dtable.len() / width;
        for i in 0..ids.len() {
            let row = ids.get(i);
            if !(first..end).contains(&row) {
                continue;
            }
            let sum = &mut dtable[(row - first) * width..][..width];
            let dy = &dy[i * width..][..width];
            vectorized(
                #[inline(always)]
                || sum.iter_mut().zip(dy).for_each(|(sum, &dy)| *sum += dy),
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{convert, in_pools};
    use crate::rng::Rng;
    use crate::testing::{assert_close, dot, finite_difference, normal};

    /// Ids, rows of the table, and its width.
    const CASES: [[usize; 3]; 4] = [[1, 1, 1], [7, 3, 5], [300, 256, 16], [65, 1000, 33]];

    fn ids(count: usize, rows: usize) -> Vec<u32> {
        let mut rng = Rng::keyed(&[3]);
        // Few of many, so that some rows are named often and others never.
        (0..count)
            .map(|_| rng.below(rows.min(9) as u64) as u32 * (rows as u32 / 9).max(1))
            .collect()
    }

    fn naive(ids: &[u32], table: &[f64], width: usize) -> Vec<f64> {
        ids.iter().flat_map(|&id| table[id as usize * width..][..width].to_vec()).collect()
    }

    #[test]
    fn rows_are_looked_up_whatever_the_width_of_ids() {
        for [count, rows, width] in CASES {
            let (ids, table) = (ids(count, rows), normal(1, rows * width));
            let expected = naive(&ids, &table, width);
            let shorts: Vec<u16> = ids.iter().map(|&id| id as u16).collect();
            let bytes: Vec<u8> = ids.iter().map(|&id| id as u8).collect();
            let mut widths = vec![Ids::U32(&ids), Ids::U16(&shorts)];
            widths.extend((rows <= 256).then_some(Ids::U8(&bytes)));
            for ids in widths {
                let mut y = vec![f64::NAN; count * width];
                embedding(ids, &table, width, &mut y);
                assert_eq!(y, expected);
            }
        }
    }

    #[test]
    fn an_id_beyond_the_table_reads_its_last_row() {
        let mut y = [0.0; 2];
        embedding(Ids::U16(&[9, 1]), &[1.0, 2.0], 1, &mut y);
        assert_eq!(y, [2.0, 2.0]);
    }

    #[test]
    fn the_gradient_matches_finite_differences() {
        for [count, rows, width] in CASES {
            let ids = ids(count, rows);
            let dy = normal(2, count * width);
            let mut found = vec![f64::NAN; rows * width];
            embedding_grad(&dy, Ids::U32(&ids), width, &mut found);
            // Over large tables by the definition, which finite differences confirm over small ones.
            let mut expected = vec![0.0; rows * width];
            for (i, &id) in ids.iter().enumerate() {
                (0..width).for_each(|k| expected[id as usize * width + k] += dy[i * width + k]);
            }
            assert_close(&found, &expected, 1e-14, 1e-14);
            if rows < 9 {
                let table = normal(4, rows * width);
                let slope = finite_difference(&table, |x| dot(&naive(&ids, x, width), &dy));
                assert_close(&found, &slope, 1e-8, 1e-7);
            }
            let mut single = vec![f32::NAN; rows * width];
            embedding_grad(&convert::<f32>(&dy), Ids::U32(&ids), width, &mut single);
            assert_close(&single, &expected, 1e-5, 1e-5);
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (ids, dy) = (ids(5000, 500), convert::<f32>(&normal(2, 5000 * 24)));
        in_pools(|| {
            let mut dtable = vec![f32::NAN; 500 * 24];
            embedding_grad(&dy, Ids::U32(&ids), 24, &mut dtable);
            dtable
        });
    }
}
