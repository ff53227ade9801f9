// The first part of embedding_grad: for each of COUNT places the next one of its chunk with the same id, the chunk's end
// where there is none, and FIRST added where there is none before it. So the places of an id in a chunk are a list in their
// order. Ids that occur often, which are most places of a text, are found after a few steps.

const FIRST: u32 = 0x80000000u;

override COUNT: u32;
override CHUNK: u32;

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read_write> links: array<u32>;

fn id_at(place: u32) -> u32 {
    return id_of(ids[word_of(place)], place);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let place = flat_index(grid);
    if place >= COUNT {
        return;
    }
    let start = place / CHUNK * CHUNK;
    let end = min(start + CHUNK, COUNT);
    let id = id_at(place);
    var next = place + 1u;
    while next < end {
        if id_at(next) == id {
            break;
        }
        next++;
    }
    var before = place;
    while before > start {
        if id_at(before - 1u) == id {
            break;
        }
        before--;
    }
    links[place] = next + select(0u, FIRST, before == start);
}
