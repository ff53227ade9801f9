// Which numbers of an element that is one number are dropped.

fn dropped(i: u32) -> bool {
    return is_dropped(i);
}
