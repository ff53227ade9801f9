// Which numbers of an element that is four numbers are dropped.

fn dropped(i: u32) -> vec4<bool> {
    let first = 4u * i;
    return vec4<bool>(
        is_dropped(first), is_dropped(first + 1u), is_dropped(first + 2u), is_dropped(first + 3u)
    );
}
