// document_starts: ids[n, T] | starts[n, T], places[n, T]. An invocation a token, which looks back for the end of the
// document before.

override COUNT: u32;
override T: u32;
override END: u32;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> starts: array<u32>;
@group(0) @binding(2) var<storage, read_write> places: array<u32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    if i >= COUNT {
        return;
    }
    let place = i % T;
    var start = place;
    while start > 0u {
        let before = i - place + start - 1u;
        if id_of(ids[word_of(before)], before) == END {
            break;
        }
        start--;
    }
    starts[i] = start;
    places[i] = place - start;
}
