//! Numbers as pages show them.

/// A time, in the unit that fits.
pub fn seconds(s: f64) -> String {
    match s {
        s if !s.is_finite() => "—".into(),
        s if s >= 7200.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 120.0 => format!("{:.1} min", s / 60.0),
        s if s >= 10.0 => format!("{s:.1} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.0} ms", 1e3 * s),
        s if s > 0.0 => format!("{:.0} µs", 1e6 * s),
        _ => "0 s".into(),
    }
}

/// A time with a digit more, for tables: `1.25 ms`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.999_5e-3 => format!("{:.1} µs", 1e6 * s),
        s if s < 0.999_5 => format!("{:.2} ms", 1e3 * s),
        s => format!("{s:.3} s"),
    }
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { "—".into() }
}

/// A loss or the like.
pub fn number(x: f64) -> String {
    match x.abs() {
        size if !size.is_finite() => "not finite".into(),
        0.0 => "0".into(),
        size if !(1e-3..1e5).contains(&size) => format!("{x:.3e}"),
        size if size < 10.0 => format!("{x:.4}"),
        _ => format!("{x:.1}"),
    }
}

/// A whole number with its thousands apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate.
pub fn rate(per_s: f64) -> String {
    match per_s {
        r if !r.is_finite() => "—".into(),
        r if r < 100.0 => format!("{r:.1}"),
        r => count(r.round() as u64),
    }
}

/// A size.
pub fn bytes(size: u64) -> String {
    let (mut shown, mut unit) = (size as f64, 0);
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    while shown >= 999.95 && unit + 1 < units.len() {
        (shown, unit) = (shown / 1e3, unit + 1);
    }
    if unit == 0 { format!("{size} bytes") } else { format!("{shown:.1} {}", units[unit]) }
}
