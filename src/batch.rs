//! The batch as it lies in memory: the header, the layout of a slot, and the write-only slot that
//! workers fill. The same bytes are what the GPU copies and what the CPU twins read.

use std::any::Any;
use std::marker::PhantomData;
use std::ptr::NonNull;

use bytemuck::{Pod, Zeroable};

use crate::framing::Framing;
use crate::sync::{AtomicUsize, Ordering};

/// The type of a sample's elements as they lie in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// Bytes, for images; converted and normalised on the device.
    U8,
    /// Unsigned 16-bit integers: token ids.
    U16,
    /// Unsigned 32-bit integers: class labels, indices, token ids of large vocabularies.
    U32,
    /// 32-bit floats, little-endian.
    F32,
    /// 16-bit floats, for activations on a device.
    F16,
}

impl DType {
    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::U16 | DType::F16 => 2,
            DType::U32 | DType::F32 => 4,
        }
    }
}

/// Sections of a slot start at multiples of this many bytes: the largest storage buffer offset
/// alignment that WebGPU allows an adapter to ask for.
pub const SLOT_ALIGN_BYTES: usize = 256;

/// What changes from step to step, at the head of every slot. The device thread writes it just
/// before the step is submitted; shaders read it as `StepHeader` in `shaders/shared/header.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct StepHeader {
    /// Samples in this batch; rows from here to the batch size are padding.
    pub count: u32,
    /// Optimizer steps before this one, counted from 0.
    pub step: u32,
    /// The run's seed, low half.
    pub seed_low: u32,
    /// The run's seed, high half.
    pub seed_high: u32,
    /// Learning rate of this step.
    pub lr: f32,
    /// Which part of an accumulated step this is, from 0; 0 overwrites the accumulated gradient.
    pub micro_step: u32,
    /// Share of this part's samples in the accumulated step: the weight of its gradient.
    pub weight: f32,
    /// Keeps the struct a multiple of 16 bytes.
    pub _pad: u32,
}

const _: () = assert!(size_of::<StepHeader>() == 32);

/// What one sample is: the shape and type of its input and of its target.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SampleSpec {
    /// Shape of the input without the batch dimension: `[channels, height, width]` for images.
    pub input_shape: Vec<usize>,
    /// Type of the input's elements.
    pub input_dtype: DType,
    /// What the target is.
    pub target: TargetSpec,
}

/// What a sample's target is.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum TargetSpec {
    /// One of so many classes, stored as `u32`.
    Class {
        /// Number of classes.
        classes: usize,
    },
    /// A vector of `f32`, for regression.
    Values {
        /// Length of the vector.
        len: usize,
    },
    /// The token that follows each token of the input, stored as `u32`.
    Tokens {
        /// Tokens of the input.
        len: usize,
        /// Number of different tokens: all are below it.
        vocabulary: usize,
        /// The token that ends a document, where tokens attend only to those of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        document_end: Option<u32>,
    },
}

impl SampleSpec {
    /// Bytes of one input.
    pub fn input_bytes(&self) -> usize {
        self.input_shape.iter().product::<usize>() * self.input_dtype.bytes()
    }

    /// Bytes of one target.
    pub fn target_bytes(&self) -> usize {
        match self.target {
            TargetSpec::Class { .. } => 4,
            TargetSpec::Values { len } | TargetSpec::Tokens { len, .. } => 4 * len,
        }
    }

    /// Number of classes, for a classifier.
    pub fn classes(&self) -> Option<usize> {
        match self.target {
            TargetSpec::Class { classes } => Some(classes),
            TargetSpec::Values { .. } | TargetSpec::Tokens { .. } => None,
        }
    }
}

/// Where the header, the inputs, the targets and the framings lie in a slot. All offsets and sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotLayout {
    /// Samples a full batch holds.
    pub batch_size: usize,
    /// Bytes of one sample's input.
    pub input_bytes: usize,
    /// Bytes of one sample's target.
    pub target_bytes: usize,
    /// Where the inputs begin; sample `i` at `input_offset + i * input_bytes`.
    pub input_offset: usize,
    /// Where the targets begin.
    pub target_offset: usize,
    /// Bytes of one sample's [`Framing`]; 0 where the device leaves images as they come.
    pub framing_bytes: usize,
    /// Where the framings begin.
    pub framing_offset: usize,
    /// Size of the whole slot.
    pub slot_bytes: usize,
}

impl SlotLayout {
    /// The layout of a batch of `batch_size` samples of `spec`.
    pub fn new(spec: &SampleSpec, batch_size: usize) -> Self {
        let align = |bytes: usize| bytes.next_multiple_of(SLOT_ALIGN_BYTES);
        let (input_bytes, target_bytes) = (spec.input_bytes(), spec.target_bytes());
        let input_offset = align(size_of::<StepHeader>());
        let target_offset = input_offset + align(batch_size * input_bytes);
        let slot_bytes = target_offset + align(batch_size * target_bytes);
        Self {
            batch_size,
            input_bytes,
            target_bytes,
            input_offset,
            target_offset,
            framing_bytes: 0,
            framing_offset: slot_bytes,
            slot_bytes,
        }
    }

    /// The same with a [`Framing`] a sample, for the device to do transforms by.
    pub fn with_framings(self) -> Self {
        let framing_bytes = size_of::<Framing>();
        let bytes = (self.batch_size * framing_bytes).next_multiple_of(SLOT_ALIGN_BYTES);
        Self { framing_bytes, slot_bytes: self.framing_offset + bytes, ..self }
    }

    /// The same for a batch whose framings nobody reads: nothing is written where they lie.
    pub fn without_framings(self) -> Self {
        Self { framing_bytes: 0, ..self }
    }
}

/// Where one sample of a batch is written to.
pub struct Window<'a> {
    /// The input.
    pub input: WriteOnly<'a>,
    /// The target.
    pub target: WriteOnly<'a>,
    /// The [`Framing`]; empty where the layout has none.
    pub framing: WriteOnly<'a>,
}

impl Window<'_> {
    /// Makes all of it zeros.
    pub fn clear(&mut self) {
        self.input.fill(0);
        self.target.fill(0);
        self.framing.fill(0);
    }
}

/// A window of a slot that can only be written: mapped GPU memory may be write-combined, where a
/// read is hundreds of times slower than a write.
pub struct WriteOnly<'a> {
    ptr: NonNull<u8>,
    len: usize,
    _slot: PhantomData<&'a mut [u8]>,
}

// SAFETY: a `WriteOnly` is an exclusive borrow of plain bytes, like `&mut [u8]`.
unsafe impl Send for WriteOnly<'_> {}

impl WriteOnly<'_> {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes all of it.
    ///
    /// # Panics
    /// If `bytes` has another length: the caller checks what a source delivers before writing it.
    pub fn copy_from_slice(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.len, "a write must cover its window exactly");
        // SAFETY: `ptr..ptr + len` is exclusively ours, and `bytes` is another allocation.
        unsafe { self.ptr.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), self.len) }
    }

    /// Writes a part of it, from byte `offset` on.
    ///
    /// # Panics
    /// If the part is not within the window.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.len), "a write must stay in its window");
        // SAFETY: `ptr..ptr + len` is exclusively ours and holds the part, as just checked; `bytes` is another allocation.
        unsafe {
            self.ptr.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Sets every byte.
    pub fn fill(&mut self, byte: u8) {
        // SAFETY: `ptr..ptr + len` is exclusively ours.
        unsafe { self.ptr.as_ptr().write_bytes(byte, self.len) }
    }
}

/// One place of the ring: memory for one batch, owned by whoever may write it. It travels from the
/// executor to the prepare thread empty, and back filled.
#[derive(Debug)]
pub struct Slot {
    /// Its place in the ring.
    pub index: usize,
    ptr: NonNull<u8>,
    len: usize,
    /// Owner of the memory: dropped with the slot (a mapped view or a vector).
    owner: Option<Box<dyn Any + Send>>,
    /// Whether the memory may also be read (plain host memory).
    readable: bool,
}

// SAFETY: the slot owns its memory exclusively for as long as it lives.
unsafe impl Send for Slot {}
// SAFETY: through `&Slot` the memory can only be read.
unsafe impl Sync for Slot {}

impl Slot {
    /// A slot in plain host memory, zeroed; 16-byte aligned so that it can be read as `u32`/`f32`.
    pub fn host(index: usize, slot_bytes: usize) -> Self {
        let mut memory = vec![0u128; slot_bytes.div_ceil(16)];
        let ptr = NonNull::from(memory.as_mut_slice()).cast();
        Self { index, ptr, len: slot_bytes, owner: Some(Box::new(memory)), readable: true }
    }

    /// A slot over memory that somebody else provides, for example a mapped GPU buffer.
    ///
    /// # Safety
    /// `ptr..ptr + len` must be valid for writes, by this slot alone, until `owner` is dropped.
    pub unsafe fn from_raw(
        index: usize,
        ptr: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any + Send>,
    ) -> Self {
        Self { index, ptr, len, owner: Some(owner), readable: false }
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the owner of the memory back, ending the slot: a mapped view is dropped by this, after
    /// which its buffer can be unmapped.
    pub fn into_owner(mut self) -> Box<dyn Any + Send> {
        self.owner.take().expect("the owner is only taken here")
    }

    /// The bytes, if the slot lies in plain host memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        // SAFETY: host memory of `len` initialised bytes, borrowed for as long as `self`.
        self.readable.then(|| unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) })
    }

    /// Writes the header.
    pub fn write_header(&mut self, header: &StepHeader) {
        self.window(0, size_of::<StepHeader>()).copy_from_slice(bytemuck::bytes_of(header));
    }

    /// Writes bytes from `offset` on, wherever that is.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.window(offset, bytes.len()).copy_from_slice(bytes);
    }

    /// Disjoint windows for every sample of a batch, in order; hand them to as many workers as there are.
    pub fn windows<'a>(&'a mut self, layout: &SlotLayout) -> Vec<Window<'a>> {
        assert!(layout.slot_bytes <= self.len, "the layout must fit the slot");
        (0..layout.batch_size).map(|i| self.row(layout, i)).collect()
    }

    /// The windows of one sample. Those of different samples never overlap: the strides are the lengths.
    fn row<'a>(&self, layout: &SlotLayout, row: usize) -> Window<'a> {
        let part = |offset, bytes| self.raw(offset + row * bytes, bytes);
        Window {
            input: part(layout.input_offset, layout.input_bytes),
            target: part(layout.target_offset, layout.target_bytes),
            framing: part(layout.framing_offset, layout.framing_bytes),
        }
    }

    /// As [`Slot::windows`], for those who frame nothing: of input and target.
    pub fn samples<'a>(&'a mut self, layout: &SlotLayout) -> Vec<(WriteOnly<'a>, WriteOnly<'a>)> {
        self.windows(layout).into_iter().map(|window| (window.input, window.target)).collect()
    }

    fn window(&mut self, offset: usize, len: usize) -> WriteOnly<'_> {
        assert!(offset + len <= self.len, "window within the slot");
        self.raw(offset, len)
    }

    /// Callers keep windows in bounds and disjoint.
    fn raw<'a>(&self, offset: usize, len: usize) -> WriteOnly<'a> {
        debug_assert!(offset + len <= self.len);
        // SAFETY: `offset` is within the allocation.
        let ptr = unsafe { self.ptr.add(offset) };
        WriteOnly { ptr, len, _slot: PhantomData }
    }
}

/// A slot that several workers fill at once: each takes the next rows that nobody has taken yet.
#[derive(Debug)]
pub struct SharedSlot {
    slot: Slot,
    layout: SlotLayout,
    /// Rows taken so far; may run past the end.
    taken: AtomicUsize,
    /// Rows to be taken.
    rows: usize,
}

/// Rows of a slot that one worker has taken: the number of the first, and the windows of each.
pub type Rows<'a> = (usize, Vec<Window<'a>>);

impl SharedSlot {
    /// The slot's place in the ring.
    pub fn index(&self) -> usize {
        self.slot.index
    }

    /// Opens the first `rows` rows of a slot; those after them are padding and become zeros.
    ///
    /// # Panics
    /// If there are more rows than the layout has, or the layout is larger than the slot.
    pub fn new(slot: Slot, layout: &SlotLayout, rows: usize) -> Self {
        assert!(layout.slot_bytes <= slot.len, "the layout must fit the slot");
        assert!(rows <= layout.batch_size, "a batch has a row for every sample");
        let shared = Self { slot, layout: layout.clone(), taken: AtomicUsize::new(0), rows };
        for row in rows..layout.batch_size {
            shared.row(row).clear();
        }
        shared
    }

    /// The next rows, at most `count`; `None` once all are taken.
    pub fn take(&self, count: usize) -> Option<Rows<'_>> {
        let count = count.min(self.rows);
        let first = self.taken.fetch_add(count, Ordering::Relaxed).min(self.rows);
        let last = first.saturating_add(count).min(self.rows);
        // The counter gives every row out once, so that no two windows overlap.
        (first < last).then(|| (first, (first..last).map(|row| self.row(row)).collect()))
    }

    /// Whether rows are left to be taken.
    pub fn is_open(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.rows
    }

    /// The slot; nobody holds any of its rows any more.
    pub fn into_slot(self) -> Slot {
        self.slot
    }

    fn row(&self, row: usize) -> Window<'_> {
        self.slot.row(&self.layout, row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SampleSpec {
        SampleSpec {
            input_shape: vec![1, 3, 3],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        }
    }

    #[test]
    fn sections_are_aligned_and_disjoint() {
        let layout = SlotLayout::new(&spec(), 100);
        assert_eq!(layout.input_offset, 256);
        assert_eq!(layout.target_offset, 256 + 1024);
        assert_eq!(layout.slot_bytes, 256 + 1024 + 512);
        let framed = layout.clone().with_framings();
        assert_eq!(framed.framing_offset, layout.slot_bytes);
        // 100 times 56 bytes, rounded up.
        assert_eq!(framed.slot_bytes, layout.slot_bytes + 5632);
    }

    #[test]
    fn windows_land_where_the_layout_says() {
        let layout = SlotLayout::new(&spec(), 3);
        let mut slot = Slot::host(0, layout.slot_bytes);
        slot.write_header(&StepHeader { count: 3, ..Default::default() });
        for (i, (mut input, mut target)) in slot.samples(&layout).into_iter().enumerate() {
            input.fill(i as u8 + 1);
            target.copy_from_slice(&(i as u32 + 7).to_le_bytes());
        }
        assert!(slot.windows(&layout).iter().all(|window| window.framing.is_empty()));
        let bytes = slot.bytes().expect("host memory is readable");
        assert_eq!(bytes[0], 3);
        assert_eq!(&bytes[256..256 + 28], [[1u8; 9].as_slice(), &[2; 9], &[3; 9], &[0]].concat());
        assert_eq!(bytes[layout.target_offset + 8], 9);
        let layout = layout.with_framings();
        let mut slot = Slot::host(0, layout.slot_bytes);
        for (i, mut window) in slot.windows(&layout).into_iter().enumerate() {
            window.framing.fill(i as u8 + 1);
        }
        let bytes = slot.bytes().expect("host memory is readable");
        let framings = &bytes[layout.framing_offset..];
        assert_eq!([0, 55, 56, 112, 167, 168].map(|i| framings[i]), [1, 1, 2, 3, 3, 0]);
        assert!(bytes[..layout.framing_offset].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn every_row_of_a_shared_slot_is_taken_once() {
        let layout = SlotLayout::new(&spec(), 50);
        for (rows, count) in [(50, 7), (49, 7), (1, 7), (0, 7), (50, 1), (50, 100)] {
            let mut slot = Slot::host(0, layout.slot_bytes);
            slot.samples(&layout).iter_mut().for_each(|(input, _)| input.fill(0xaa));
            let shared = SharedSlot::new(slot, &layout, rows);
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while let Some((first, windows)) = shared.take(count) {
                            for (row, mut window) in (first..).zip(windows) {
                                window.input.fill(row as u8 + 1);
                            }
                        }
                    });
                }
            });
            assert!(!shared.is_open() && shared.take(1).is_none());
            let slot = shared.into_slot();
            let bytes = &slot.bytes().expect("host memory is readable")[layout.input_offset..];
            for (row, input) in bytes.chunks_exact(9).take(50).enumerate() {
                let expected = if row < rows { row as u8 + 1 } else { 0 };
                assert_eq!(input, [expected; 9], "row {row} of {rows}");
            }
        }
    }
}
