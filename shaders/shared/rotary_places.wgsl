// A token stands where it is in its sample.

fn position_of(token: u32) -> u32 {
    return token % T;
}
