//! Who gets how many of the seats that there are: levels lend what they do not need to those that want more (KEP-1040).

/// A target of nothing still counts as so much, so that what nobody wants can be given to somebody.
const SMALLEST: f64 = 0.001;

/// What a level may have, and what it would like to have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Claim {
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) target: f64,
}

impl Claim {
    /// What it gets if everybody gets this part of the target.
    fn at(&self, part: f64) -> f64 {
        (part * self.target.max(SMALLEST)).max(self.least).min(self.most)
    }
}

/// Shares out the seats: everybody gets the same part of their target, unless that is less or more than they may have. What is more than all
/// may have together, or less, stays.
pub(super) fn share_out(seats: f64, claims: &[Claim]) -> Vec<f64> {
    let total = |part: f64| claims.iter().map(|claim| claim.at(part)).sum::<f64>();
    // With the larger part nobody may have more.
    let (mut low, mut high) =
        (0.0, claims.iter().map(|claim| claim.most / claim.target.max(SMALLEST)).fold(0.0, f64::max));
    // More never makes the total smaller. Halved so often, the parts are the same number.
    for _ in 0..128 {
        let middle = f64::midpoint(low, high);
        if total(middle) < seats { low = middle } else { high = middle }
    }
    claims.iter().map(|claim| claim.at(high)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(least: f64, most: f64, target: f64) -> Claim {
        Claim { least, most, target }
    }

    fn near(found: &[f64], wanted: &[f64]) -> bool {
        found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    #[test]
    fn everybody_gets_the_same_part_of_what_they_want() {
        let share = |claims: &[Claim]| share_out(100.0, claims);
        let found = share(&[claim(0.0, 100.0, 10.0), claim(0.0, 100.0, 40.0)]);
        assert!(near(&found, &[20.0, 80.0]), "{found:?}");
        // Not more than they may have, and not less.
        let found = share(&[claim(0.0, 100.0, 10.0), claim(0.0, 50.0, 40.0)]);
        assert!(near(&found, &[50.0, 50.0]), "{found:?}");
        let found = share(&[claim(30.0, 100.0, 30.0), claim(0.0, 200.0, 270.0)]);
        assert!(near(&found, &[30.0, 70.0]), "{found:?}");
        // Nobody wants anything: what there is is theirs all the same.
        let found = share(&[claim(0.0, 100.0, 0.0), claim(0.0, 100.0, 0.0)]);
        assert!(near(&found, &[50.0, 50.0]), "{found:?}");
        // There is not enough to go around, or too much.
        let found = share(&[claim(80.0, 100.0, 90.0), claim(40.0, 100.0, 90.0)]);
        assert!(near(&found, &[80.0, 40.0]), "{found:?}");
        let found = share(&[claim(0.0, 30.0, 10.0), claim(0.0, 40.0, 10.0)]);
        assert!(near(&found, &[30.0, 40.0]), "{found:?}");
        assert!(share(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn all_seats_go_to_somebody_who_may_have_them(
            levels in prop::collection::vec((0..200_u32, 0..200_u32, 0..200_u32, 0..400_u32), 1..10)
        ) {
            // As nominal limits are made: between what is kept and what may be had.
            let seats: u32 = levels.iter().map(|(kept, lent, ..)| kept + lent).sum();
            let claims: Vec<_> = levels
                .iter()
                .map(|&(kept, lent, borrowed, wanted)| {
                    let least = f64::from(kept);
                    claim(least, f64::from(kept + lent + borrowed), least.max(f64::from(wanted)))
                })
                .collect();
            let shares = share_out(f64::from(seats), &claims);
            prop_assert!((shares.iter().sum::<f64>() - f64::from(seats)).abs() < 1e-3);
            for (share, claim) in shares.iter().zip(&claims) {
                prop_assert!(claim.least <= *share && *share <= claim.most);
            }
        }
    }
}
