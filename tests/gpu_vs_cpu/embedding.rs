//! Rows of a table by their numbers, and the gradient of the table, with widths that four divides and does not.

use inflight::batch::DType;
use inflight::graph::op::Op;
use inflight::testing::assert_close;

use crate::bench::Bench;
use crate::{below, header, normal};

/// Ids, rows of the table, and its width.
const CASES: [[usize; 3]; 6] =
    [[1, 1, 1], [63, 256, 16], [64, 3, 5], [65, 1000, 33], [301, 65, 48], [2000, 7, 4]];

/// The ids of a case in the width of `dtype`.
fn ids(bench: &mut Bench, [count, rows, _]: [usize; 3], dtype: DType) -> inflight::graph::TensorId {
    // Of many rows, some are named often and most never.
    let ids = below(3, rows.min(50) as u64, count);
    match dtype {
        DType::U8 => bench.u8(&[count], &ids.iter().map(|&id| id as u8).collect::<Vec<_>>()),
        DType::U16 => bench.u16(&[count], &ids.iter().map(|&id| id as u16).collect::<Vec<_>>()),
        _ => bench.u32(&[count], &ids),
    }
}

#[test]
fn embedding() {
    for case @ [count, rows, width] in CASES {
        for dtype in [DType::U8, DType::U16, DType::U32] {
            let mut bench = Bench::new(1, header(1));
            let ids = ids(&mut bench, case, dtype);
            let table = bench.f32(&[rows, width], &normal(1, rows * width));
            let y = bench.output(&[count, width]);
            bench.push(Op::Embedding, &[ids, table], &[y]);
            bench.check(0.0, 0.0);
        }
    }
}

#[test]
fn embedding_grad() {
    for case @ [count, rows, width] in CASES {
        for dtype in [DType::U8, DType::U16, DType::U32] {
            let mut bench = Bench::new(1, header(1));
            let dy = bench.f32(&[count, width], &normal(2, count * width));
            let ids = ids(&mut bench, case, dtype);
            let dtable = bench.output(&[rows, width]);
            bench.push(Op::EmbeddingGrad, &[dy, ids], &[dtable]);
            // The order of each sum is the same on both sides.
            bench.check(1e-6, 1e-6);
        }
    }
}

/// llvmpipe ends all loops of an invocation after 65,535 turns together.
#[test]
fn a_batch_may_be_longer_than_the_loops_of_a_software_adapter() {
    let (count, rows) = (70_000, 4);
    // One id that is nearly everywhere, one at the beginning alone, and one in several chunks of places.
    let mut ids = vec![0; count];
    ids[0] = 1;
    [59_999, 60_000, count - 1].into_iter().for_each(|place| ids[place] = 2);
    for width in [3, 4] {
        let mut bench = Bench::new(1, header(1));
        let dy = bench.f32(&[count, width], &normal(2, count * width));
        let ids = bench.u32(&[count], &ids);
        let dtable = bench.output(&[rows, width]);
        bench.push(Op::EmbeddingGrad, &[dy, ids], &[dtable]);
        // What hardware gets is more than this adapter may do.
        let Some(gpu) = bench.on_gpu() else { return };
        assert_close(&gpu[0], &bench.on_cpu()[0], 1e-6, 1e-6);
    }
}

#[test]
fn two_runs_give_the_same_bits() {
    let [count, rows, width] = [2000, 7, 4];
    let mut bench = Bench::new(1, header(1));
    let dy = bench.f32(&[count, width], &normal(2, count * width));
    let ids = ids(&mut bench, [count, rows, width], DType::U16);
    let dtable = bench.output(&[rows, width]);
    bench.push(Op::EmbeddingGrad, &[dy, ids], &[dtable]);
    let bits = |results: Vec<Vec<Vec<f32>>>| -> Vec<u32> {
        results.into_iter().flatten().flatten().map(f32::to_bits).collect()
    };
    assert_eq!(bits(bench.on_both()), bits(bench.on_both()));
}
