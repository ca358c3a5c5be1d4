//! A set of CPUs, in the two forms in which the kernel reads and prints it.

use std::fmt;
use std::str::FromStr;

/// The most CPUs that Linux can be built for (`NR_CPUS` of `arch/x86/Kconfig`): numbers are below.
pub const CPUS_MAX: usize = 8192;

/// Bits in one group of the kernel's hexadecimal form.
const GROUP_BITS: usize = 32;

/// A set of CPUs by number, each below [`CPUS_MAX`].
///
/// Printed and read as a list, `0-3,7`, which is empty for no CPU. The other form of the kernel is a
/// mask, `ff,00000000`: see [`to_mask`](CpuSet::to_mask) and [`from_mask`](CpuSet::from_mask). Both are
/// described in `lib/bitmap-str.c` (`bitmap_parse`, `bitmap_parselist`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct CpuSet {
    /// Groups of the mask, the lowest first; the last one is not zero, so equal sets are equal values.
    groups: Vec<u32>,
}

impl CpuSet {
    /// A set without a CPU.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a CPU in.
    ///
    /// # Errors
    /// [`CpuSetError`]: there cannot be a CPU of this number.
    pub fn insert(&mut self, cpu: usize) -> Result<(), CpuSetError> {
        if cpu >= CPUS_MAX {
            return Err(CpuSetError { text: cpu.to_string() });
        }
        let group = cpu / GROUP_BITS;
        if group >= self.groups.len() {
            self.groups.resize(group + 1, 0);
        }
        self.groups[group] |= 1 << (cpu % GROUP_BITS);
        Ok(())
    }

    /// Whether a CPU is in.
    pub fn contains(&self, cpu: usize) -> bool {
        self.groups.get(cpu / GROUP_BITS).is_some_and(|group| group >> (cpu % GROUP_BITS) & 1 == 1)
    }

    /// Whether none is in.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many are in.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.count_ones() as usize).sum()
    }

    /// The CPUs in rising order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.groups.len() * GROUP_BITS).filter(|&cpu| self.contains(cpu))
    }

    /// Those that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.iter().filter(|&cpu| other.contains(cpu)).collect()
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|&cpu| !other.contains(cpu)).collect()
    }

    /// The kernel's mask: hexadecimal groups of 32 CPUs, the highest first, separated by commas.
    pub fn to_mask(&self) -> String {
        let Some((highest, rest)) = self.groups.split_last() else {
            return "0".to_owned();
        };
        let mut mask = format!("{highest:x}");
        for group in rest.iter().rev() {
            mask.push_str(&format!(",{group:08x}"));
        }
        mask
    }

    /// Reads the kernel's mask.
    ///
    /// # Errors
    /// [`CpuSetError`]: not hexadecimal groups of at most eight digits, or a CPU that cannot be.
    pub fn from_mask(text: &str) -> Result<Self, CpuSetError> {
        let text = text.trim();
        let wrong = || CpuSetError { text: shortened(text) };
        let mut groups = Vec::new();
        for group in text.rsplit(',') {
            let is_hexadecimal = group.bytes().all(|byte| byte.is_ascii_hexdigit());
            if group.is_empty() || group.len() > GROUP_BITS / 4 || !is_hexadecimal {
                return Err(wrong());
            }
            if groups.len() == CPUS_MAX / GROUP_BITS {
                return Err(wrong());
            }
            groups.push(u32::from_str_radix(group, 16).map_err(|_| wrong())?);
        }
        while groups.last() == Some(&0) {
            groups.pop();
        }
        Ok(Self { groups })
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;

    /// Reads a list: numbers and ranges, separated by commas. Nothing is the empty set.
    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        let text = text.trim();
        let wrong = || CpuSetError { text: shortened(text) };
        let mut set = Self::new();
        if text.is_empty() {
            return Ok(set);
        }
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| match text.parse::<usize>() {
                // `parse` would take a sign.
                Ok(cpu) if cpu < CPUS_MAX && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(cpu),
                _ => Err(wrong()),
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            (first..=last).try_for_each(|cpu| set.insert(cpu))?;
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

impl FromIterator<usize> for CpuSet {
    /// A set of numbers; those of [`CPUS_MAX`] and above are left out.
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        let mut set = Self::new();
        for cpu in cpus {
            // Refused is only what no CPU can be called.
            let _ = set.insert(cpu);
        }
        set
    }
}

/// A text that is no set of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no set of CPUs; a list is accepted, as in 0-3,7, of numbers below {CPUS_MAX}")]
pub struct CpuSetError {
    text: String,
}

/// As much of a text as fits a message.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_examples() {
        let set: CpuSet = "0-3,7".parse().unwrap();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 7]);
        assert_eq!((set.to_string().as_str(), set.to_mask().as_str()), ("0-3,7", "8f"));
        let high = CpuSet::from_mask("ff,00000000\n").unwrap();
        assert_eq!((high.to_string().as_str(), high.len()), ("32-39", 8));
        assert_eq!(high.to_mask(), "ff,00000000");
        for empty in [CpuSet::from_mask("00000000,00000000").unwrap(), "\n".parse().unwrap(), CpuSet::new()] {
            assert_eq!(
                (empty.is_empty(), empty.to_mask().as_str(), empty.to_string().as_str()),
                (true, "0", "")
            );
            assert_eq!(empty, CpuSet::new());
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for wrong in ["x", "1-", "-1", "3-1", "1,,2", "8192", "0-8192", "+1", "1 2", "99999999999999999999"] {
            assert!(wrong.parse::<CpuSet>().is_err(), "{wrong}");
        }
        let too_many = vec!["1"; CPUS_MAX / 32 + 1].join(",");
        for wrong in ["", "g", "1,", "123456789", "+1", "-1", "1 1", &too_many] {
            assert!(CpuSet::from_mask(wrong).is_err(), "{wrong}");
        }
        assert!(CpuSet::new().insert(CPUS_MAX).is_err());
        assert!(CpuSet::new().insert(CPUS_MAX - 1).is_ok());
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same_set(cpus in prop::collection::btree_set(0..CPUS_MAX, 0..40)) {
            let set: CpuSet = cpus.iter().copied().collect();
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), cpus.clone());
            prop_assert_eq!(set.len(), cpus.len());
            prop_assert_eq!(&set.to_string().parse::<CpuSet>().unwrap(), &set);
            prop_assert_eq!(&CpuSet::from_mask(&set.to_mask()).unwrap(), &set);
        }

        #[test]
        fn operations_are_those_of_sets(
            a in prop::collection::btree_set(0..200_usize, 0..60),
            b in prop::collection::btree_set(0..200_usize, 0..60),
        ) {
            let [one, other] = [&a, &b].map(|set| set.iter().copied().collect::<CpuSet>());
            prop_assert_eq!(one.intersection(&other), a.intersection(&b).copied().collect());
            prop_assert_eq!(one.difference(&other), a.difference(&b).copied().collect());
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,80}") {
            let _ = text.parse::<CpuSet>();
            let _ = CpuSet::from_mask(&text);
        }
    }
}
