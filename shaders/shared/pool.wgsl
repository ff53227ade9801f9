// The geometry of pooling windows; images are [planes, H, W], results [planes, OH, OW].

override H: u32;
override W: u32;
override OH: u32;
override OW: u32;
override KH: u32;
override KW: u32;
override SH: u32;
override SW: u32;
override PH: u32;
override PW: u32;

// A stretch of indices: from `first` up to, not including, `end`.
struct Span {
    first: u32,
    end: u32,
}

// The part of window `o` that lies within the `len` elements of a side.
fn window(o: u32, kernel: u32, stride: u32, padding: u32, len: u32) -> Span {
    let begin = o * stride;
    return Span(max(begin, padding) - padding, min(begin + kernel, len + padding) - padding);
}

// The windows, `count` of them on a side, that cover element `i`.
fn windows_over(i: u32, kernel: u32, stride: u32, padding: u32, count: u32) -> Span {
    let at = i + padding;
    let before = select(0u, (at - min(at, kernel)) / stride + 1u, at >= kernel);
    return Span(before, min(at / stride + 1u, count));
}
