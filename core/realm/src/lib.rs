//! Many isolated tenants' AI programs on one copy of a model's weights.
