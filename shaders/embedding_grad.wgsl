// embedding_grad: dy[n, WIDTH], ids[n], links[n] | dtable[ROWS, WIDTH], of the chunk of places from FROM to END. An
// invocation adds up an element of all places of an id, in their order, from the first one on, and goes on where the chunk
// before ended; those of other places have nothing to do. Rows that no id names are zero already.

const FIRST: u32 = 0x80000000u;

override FROM: u32;
override END: u32;
override ROWS: u32;
override WIDTH: u32;

@group(0) @binding(0) var<storage, read> dy: array<StoreDy>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> links: array<u32>;
@group(0) @binding(3) var<storage, read_write> dtable: array<StoreDtable>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn main(grid: Grid) {
    let i = flat_index(grid);
    var place = FROM + i / WIDTH;
    if place >= END {
        return;
    }
    let row = id_of(ids[word_of(place)], place);
    if (links[place] & FIRST) == 0u || row >= ROWS {
        return;
    }
    var sum = Element();
    if FROM > 0u {
        sum = Element(dtable[row * WIDTH + i % WIDTH]);
    }
    while place < END {
        sum += Element(dy[place * WIDTH + i % WIDTH]);
        place = links[place] & ~FIRST;
    }
    dtable[row * WIDTH + i % WIDTH] = StoreDtable(sum);
}
