//! Whom the hub trusts: verification and policy (`judge`), who joined judged again (`review`), the trust store kept current
//! (`refresh`).

pub(crate) mod judge;
pub(super) mod refresh;
pub(super) mod review;
