//! Where the document of each token begins.

use rayon::prelude::*;

use super::call::{Call, Ids};
use super::real::Real;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>, end: u32) {
    let tokens = call.shape(0)[1];
    let (ids, starts, places) = (call.ids(0), call.out_indices(0), call.out_indices(1));
    let samples = starts.par_chunks_mut(tokens).zip(places.par_chunks_mut(tokens)).enumerate();
    samples.for_each(|(sample, (starts, places))| {
        document_starts(&ids, sample * tokens, end, starts, places);
    });
}

/// The starts and places of the tokens of a sample, whose first token is number `first` of `ids`.
pub fn document_starts(
    ids: &Ids<'_>,
    first: usize,
    end: u32,
    starts: &mut [u32],
    places: &mut [u32],
) {
    let mut start = 0;
    for (i, (to, place)) in starts.iter_mut().zip(places).enumerate() {
        *to = start;
        *place = i as u32 - start;
        if ids.get(first + i) == end as usize {
            start = i as u32 + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_ends_with_its_last_token() {
        let (mut starts, mut places) = (vec![9; 8], vec![9; 8]);
        let ids = [7, 5, 1, 0, 2, 0, 0, 3, 0, 7];
        document_starts(&Ids::U16(&ids), 1, 0, &mut starts, &mut places);
        assert_eq!(starts, [0, 0, 0, 3, 3, 5, 6, 6]);
        assert_eq!(places, [0, 1, 2, 0, 1, 0, 0, 1]);
    }
}
