//! A curve of bounded size over a run of any length.

/// Points that a curve keeps at most: more than a page or a terminal is wide.
const POINTS_MAX: usize = 1024;

/// Takes points in order of x, and keeps their means over stretches that double in length whenever there are too many.
/// The stretches depend on the number of points alone, so that the same points give the same curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    stretches: Vec<Stretch>,
    /// Points in a full stretch.
    len: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Stretch {
    x: f64,
    y: f64,
    count: u64,
}

impl Stretch {
    fn add(&mut self, other: Self) {
        self.x += other.x;
        self.y += other.y;
        self.count += other.count;
    }
}

impl Default for Curve {
    fn default() -> Self {
        Self { stretches: Vec::new(), len: 1 }
    }
}

impl Curve {
    /// Adds a point. One that is not finite is left out.
    pub fn add(&mut self, x: f64, y: f64) {
        if !x.is_finite() || !y.is_finite() {
            return;
        }
        let point = Stretch { x, y, count: 1 };
        match self.stretches.last_mut() {
            Some(last) if last.count < self.len => last.add(point),
            _ => self.stretches.push(point),
        }
        if self.stretches.len() > POINTS_MAX {
            self.halve();
        }
    }

    fn halve(&mut self) {
        let pairs = self.stretches.chunks(2).map(|pair| {
            let mut sum = pair[0];
            pair.get(1).into_iter().for_each(|second| sum.add(*second));
            sum
        });
        self.stretches = pairs.collect();
        self.len *= 2;
    }

    /// The mean of each stretch, in order.
    pub fn points(&self) -> Vec<(f64, f64)> {
        let mean = |s: &Stretch| (s.x / s.count as f64, s.y / s.count as f64);
        self.stretches.iter().map(mean).collect()
    }

    /// The points, each averaged with those before it by a weight that falls to a half over a hundredth of the curve:
    /// the line that a person would draw through the noise.
    pub fn smooth(&self) -> Vec<(f64, f64)> {
        let points = self.points();
        let half_life = (points.len() as f64 / 100.0).max(1.0);
        let keep = 0.5f64.powf(1.0 / half_life);
        let (mut sum, mut weight) = (0.0, 0.0);
        let smooth = |(x, y)| {
            sum = sum * keep + y;
            weight = weight * keep + 1.0;
            (x, sum / weight)
        };
        points.into_iter().map(smooth).collect()
    }

    /// Whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.stretches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_stays_short_and_keeps_its_mean() {
        let mut curve = Curve::default();
        for i in 0..100_000 {
            curve.add(f64::from(i), f64::from(i % 10));
        }
        curve.add(f64::NAN, 1.0);
        curve.add(1e6, f64::INFINITY);
        let points = curve.points();
        assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&points.len()), "{}", points.len());
        assert!(points.is_sorted_by(|a, b| a.0 < b.0));
        assert!(points[..700].iter().all(|(_, y)| (y - 4.5).abs() < 0.2), "{:?}", &points[..5]);
        assert!((points[0].0 - 63.5).abs() < 1e-9, "{:?}", points[0]);
    }

    #[test]
    fn a_short_curve_is_as_it_came() {
        let mut curve = Curve::default();
        curve.add(1.0, 5.0);
        curve.add(2.0, 3.0);
        assert_eq!(curve.points(), [(1.0, 5.0), (2.0, 3.0)]);
        // The half-life is one point, so the earlier one weighs half as much.
        let smooth = curve.smooth();
        assert!((smooth[1].1 - 11.0 / 3.0).abs() < 1e-12, "{smooth:?}");
    }
}
