//! Lists of a runtime's models and tenants that keep none of them alive.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A list of weak references. A clone is the same list.
pub(crate) struct Registry<T>(Arc<Mutex<Vec<Weak<T>>>>);

impl<T> Registry<T> {
    pub(crate) fn add(&self, item: &Arc<T>) {
        let mut items = self.lock();
        // Runs only when the list is full, so each time it has doubled.
        if items.len() == items.capacity() {
            items.retain(|item| item.strong_count() > 0);
        }
        items.push(Arc::downgrade(item));
    }

    /// Returns the items that still exist, in the order in which they were added.
    pub(crate) fn living(&self) -> Vec<Arc<T>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.living().len()).finish()
    }
}
