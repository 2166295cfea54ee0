//! Sites of macros, numbered once per process: sorted, so that the numbers depend on the source and
//! not on the order in which a linker laid the sites out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A place in the source that registered itself when it was compiled.
pub(super) trait Site: 'static {
    /// What sites are sorted by. Sites with equal keys are one: a crate can be linked twice.
    fn key(&self) -> (&'static str, &'static str, u32, u32);
    /// Where the site keeps its number.
    fn number(&self) -> &SiteNumber;
}

/// The number of a site, once the table has been made.
#[derive(Debug)]
pub(super) struct SiteNumber(AtomicUsize);

impl SiteNumber {
    pub(super) const fn unknown() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }

    #[inline]
    pub(super) fn get(&self) -> Option<usize> {
        let number = self.0.load(Ordering::Relaxed);
        (number != usize::MAX).then_some(number)
    }
}

/// Every site of one macro, by number.
pub(super) struct Table<S: Site>(OnceLock<Vec<&'static S>>);

impl<S: Site> Table<S> {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The sites. The first call numbers what `registered` gives.
    pub(super) fn sites<I>(&self, registered: impl FnOnce() -> I) -> &[&'static S]
    where
        I: Iterator<Item = &'static S>,
    {
        self.0.get_or_init(|| {
            let mut all: Vec<&'static S> = registered().collect();
            all.sort_by_key(|site| site.key());
            let mut unique: Vec<&'static S> = Vec::with_capacity(all.len());
            for site in all {
                if unique.last().is_none_or(|last| last.key() != site.key()) {
                    unique.push(site);
                }
                let number = unique.len() - 1;
                site.number().0.store(number, Ordering::Relaxed);
            }
            unique
        })
    }
}
