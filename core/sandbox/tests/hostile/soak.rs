//! Many short requests.
