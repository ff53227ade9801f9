//! What kernels are measured with, and how their results are judged.

use half::f16;

use crate::batch::{DType, StepHeader};
use crate::framing::Framing;
use crate::graph::op::{CONTROL_LEN, Op, PoolGeometry};
use crate::graph::plan::CONTROL_NAME;
use crate::graph::{Role, Tensor};

/// A number around 0 for each place; neighbours differ, and so do rows of any common length (2039 is prime).
fn number(i: usize) -> f32 {
    ((i * 7919 % 2039) as f32 - 1019.5) / 1020.0
}

/// The bytes that input `binding` of `op` is measured with.
pub(super) fn input(op: &Op, binding: usize, tensor: &Tensor, header: &StepHeader) -> Vec<u8> {
    if tensor.role == Role::Header {
        return bytemuck::bytes_of(header).to_vec();
    }
    let len = tensor.len();
    if tensor.name == CONTROL_NAME {
        // As after a first step, without clipping and without a scale of the loss.
        let mut words = [0.0f32; CONTROL_LEN];
        words[..8].copy_from_slice(&[0.1, 0.001, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
        return bytemuck::bytes_of(&words).to_vec();
    }
    if let (Op::MaxPool2dGrad { geometry }, 1) = (op, binding) {
        return maxima(geometry, tensor);
    }
    // What has one dimension may be a variance or a sum of squares, which are positive.
    let positive = tensor.shape.len() == 1;
    let float = |i| if positive { 0.75 + 0.5 * number(i) } else { number(i) };
    match tensor.dtype {
        DType::U8 => (0..len).map(|i| (i * 31 % 251) as u8).collect(),
        // Labels: the first ones exist everywhere.
        DType::U32 => (0..len).flat_map(|i| (i as u32 % 2).to_le_bytes()).collect(),
        DType::U16 => (0..len).flat_map(|i| ((i * 31 % 251) as u16).to_le_bytes()).collect(),
        DType::F32 => (0..len).flat_map(|i| float(i).to_le_bytes()).collect(),
        DType::F16 => (0..len).flat_map(|i| f16::from_f32(float(i)).to_le_bytes()).collect(),
    }
}

/// What a usual recipe does to images of `size`: a shift by a few pixels, half of them mirrored, a box covered.
pub(super) fn framings(images: usize, size @ [height, width]: [usize; 2]) -> Vec<u8> {
    let framing = |i: usize| {
        let mut framing = Framing::whole(size);
        framing.shift([2 - (i % 5) as i64, (i % 7) as i64 - 3], size, 0);
        if i.is_multiple_of(2) {
            framing.mirror_columns(width);
        }
        framing.cover_by(height / 4..height / 2, width / 4..width / 2, 0);
        framing
    };
    bytemuck::cast_slice(&(0..images).map(framing).collect::<Vec<Framing>>()).to_vec()
}

/// Where each window could have its maximum: in its first element.
fn maxima(geometry: &PoolGeometry, index: &Tensor) -> Vec<u8> {
    let (rows, columns) = (index.shape[2], index.shape[3]);
    let PoolGeometry { kernel, stride, padding } = geometry;
    // As wide as it is at least; a wider image only means that other elements are hit.
    let width = ((columns - 1) * stride[1] + kernel[1]).saturating_sub(2 * padding[1]).max(1);
    let first = |i: usize, axis: usize| (i * stride[axis]).saturating_sub(padding[axis]);
    let place = |i: usize| {
        let (row, column) = (i / columns % rows, i % columns);
        first(row, 0) * width + first(column, 1)
    };
    (0..index.len()).flat_map(|i| (place(i) as u32).to_le_bytes()).collect()
}

/// The numbers behind the bytes of a tensor.
pub(super) fn numbers(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::U8 => bytes.iter().map(|&x| f32::from(x)).collect(),
        DType::U32 => {
            bytemuck::pod_collect_to_vec::<u8, u32>(bytes).iter().map(|&x| x as f32).collect()
        }
        DType::U16 => {
            bytemuck::pod_collect_to_vec::<u8, u16>(bytes).iter().map(|&x| f32::from(x)).collect()
        }
        DType::F32 => bytemuck::pod_collect_to_vec(bytes),
        DType::F16 => {
            let bits = bytemuck::pod_collect_to_vec::<u8, u16>(bytes);
            bits.iter().map(|&x| f16::from_bits(x).to_f32()).collect()
        }
    }
}

/// The largest difference that is put down to rounding, as a share of the largest number of the result:
/// sums in another order, and convolutions by other algorithms.
fn tolerance(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => 1e-2,
        DType::F32 => 2e-4,
        DType::U8 | DType::U16 | DType::U32 => 0.0,
    }
}

/// Why a result cannot be trusted, if so; `expected` where the twin has been asked.
pub(super) fn fault(dtype: DType, found: &[f32], expected: Option<&[f32]>) -> Option<String> {
    if let Some(i) = found.iter().position(|x| !x.is_finite()) {
        return Some(format!("element {i} is {}", found[i]));
    }
    let expected = expected?;
    if found.len() != expected.len() {
        return Some(format!("{} elements where {} are expected", found.len(), expected.len()));
    }
    let most = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let allowed = tolerance(dtype) * most;
    // Asked so that what is not a number does not pass.
    let right = |(a, b): (&f32, &f32)| (a - b).abs() <= allowed;
    let i = found.iter().zip(expected).position(|pair| !right(pair))?;
    Some(format!("element {i} is {}, its twin has {}", found[i], expected[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], dtype: DType) -> Tensor {
        Tensor { name: "x".into(), shape: shape.to_vec(), dtype, role: Role::Activation }
    }

    #[test]
    fn inputs_have_their_size_and_sense() {
        let header = StepHeader { count: 7, ..Default::default() };
        for dtype in [DType::U8, DType::U32, DType::F32, DType::F16] {
            let tensor = tensor(&[3, 5], dtype);
            let bytes = input(&Op::Relu, 0, &tensor, &header);
            assert_eq!(bytes.len(), 15 * dtype.bytes());
            assert_eq!(fault(dtype, &numbers(dtype, &bytes), None), None);
        }
        let variance = input(&Op::Relu, 0, &tensor(&[5000], DType::F32), &header);
        assert!(numbers(DType::F32, &variance).iter().all(|&x| x > 0.1 && x < 1.3));
        let role = Role::Header;
        let words = input(&Op::Accuracy, 2, &Tensor { role, ..tensor(&[8], DType::U32) }, &header);
        assert_eq!((words.len(), words[0]), (32, 7));
    }

    #[test]
    fn wrong_and_endless_numbers_are_found() {
        let fault = |found: &[f32]| fault(DType::F32, found, Some(&[1.0, 100.0]));
        assert_eq!(fault(&[1.01, 100.0]), None);
        assert!(fault(&[1.05, 100.0]).is_some_and(|why| why.contains("element 0 is 1.05")));
        assert!(fault(&[f32::NAN, 100.0]).is_some());
        assert!(fault(&[1.0, f32::INFINITY]).is_some());
        assert!(fault(&[1.0]).is_some());
        assert!(super::fault(DType::U32, &[3.0], Some(&[4.0])).is_some());
    }
}
