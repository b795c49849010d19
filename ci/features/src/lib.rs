//! Nothing but a manifest: the packages that users install depend on it, so that building one of them alone,
//! all of them, or their tests asks each dependency for the same features, and each dependency is compiled
//! once. `ci/feature-set` writes the manifest. Crates that are published on crates.io don't depend on it.
