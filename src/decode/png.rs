//! What a PNG file says beside its picture: texts and colour profiles, which may be packed to a thousandth of their size.

use std::borrow::Cow;

/// The parts that are unpacked as soon as they are met, and that nothing here uses (PNG, sections 11.3.2 and 11.3.3).
const PACKED: [&[u8; 4]; 3] = [b"iCCP", b"zTXt", b"iTXt"];

/// Length of the signature.
const SIGNATURE: usize = 8;
/// Bytes of a part beside its body: length, name, checksum.
const FRAME: usize = 12;

/// The file without the parts that are packed and not used. Where it is no longer made of parts, the rest stays as it is,
/// for the decoder to tell.
pub(super) fn without_texts(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut kept: Option<Vec<u8>> = None;
    let mut at = SIGNATURE.min(bytes.len());
    while let Some(&[l3, l2, l1, l0, ref name @ ..]) = bytes[at..].first_chunk::<8>() {
        let len = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
        let Some(part) = bytes.get(at..at.saturating_add(FRAME).saturating_add(len)) else { break };
        if PACKED.contains(&name) {
            kept.get_or_insert_with(|| bytes[..at].to_vec());
        } else if let Some(kept) = &mut kept {
            kept.extend_from_slice(part);
        }
        at += part.len();
    }
    match kept {
        Some(mut kept) => {
            kept.extend_from_slice(&bytes[at..]);
            Cow::Owned(kept)
        }
        None => Cow::Borrowed(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes()[..], name, body, b"csum"].concat()
    }

    #[test]
    fn only_what_is_packed_is_left_out() {
        let head = [&b"\x89PNG\r\n\x1a\n"[..], &part(b"IHDR", &[7; 13])].concat();
        let (data, end) = (part(b"IDAT", &[1, 2, 3]), part(b"IEND", b""));
        let (text, exif) = (part(b"tEXt", b"Title\0plain"), part(b"eXIf", &[8; 9]));
        let plain = [&head[..], &text, &exif, &data, &end].concat();
        assert!(matches!(without_texts(&plain), Cow::Borrowed(same) if same == plain));
        let [profile, first, second] = PACKED.map(|name| part(name, &[9; 40]));
        let packed =
            [&head[..], &profile, &text, &first, &exif, &second, &data, &first, &end].concat();
        assert_eq!(without_texts(&packed), plain);
        // Cut short anywhere, it neither panics nor loses anything but whole parts of those.
        for len in 0..packed.len() {
            let kept = without_texts(&packed[..len]);
            let whole = len < head.len() + profile.len();
            assert_eq!(whole, kept.len() == len, "{len}");
        }
        let mut claims = packed.clone();
        claims[head.len()] = 0xff;
        assert_eq!(without_texts(&claims), claims);
    }
}
