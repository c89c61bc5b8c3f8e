//! The page's icons: paths of a 24 by 24 drawing in strokes. Not here: the icon of the browser's tab, a file of `assets`.

use maud::{Markup, html};

pub(super) const BRAND: &str = "M12 3v6M12 21v-6M4.2 7.5l5.2 3M19.8 16.5l-5.2-3M4.2 16.5l5.2-3M19.8 7.5l-5.2 3";
pub(super) const DEVICES: &str =
    "M9 18h6M10 21h4M12 3a6 6 0 0 0-3.5 10.9c.6.5 1 1.2 1 2.1h5c0-.9.4-1.6 1-2.1A6 6 0 0 0 12 3z";
pub(super) const ADD: &str = "M12 5v14M5 12h14";
pub(super) const SYNC: &str = "M4 12a8 8 0 0 1 14-5.3L20 9M20 4v5h-5M20 12a8 8 0 0 1-14 5.3L4 15M4 20v-5h5";
pub(super) const OUTBOX: &str = "M7 18a4.5 4.5 0 0 1-.5-9A6 6 0 0 1 18 9.5a4 4 0 0 1-.5 8.5M12 21v-8M9 16l3-3 3 3";
pub(super) const LOG: &str = "M5 6h14M5 12h14M5 18h9";
pub(super) const NEARBY: &str = "M12 13a1 1 0 1 0 0-2 1 1 0 0 0 0 2M8 16a5.7 5.7 0 0 1 0-8M16 8a5.7 5.7 0 0 1 0 8M5 19a10 10 0 0 1 0-14M19 5a10 10 0 0 1 0 14";
pub(super) const CONTROLLERS: &str = "M5 5h14v14H5zM9 9h2v2H9zM13 9h2v2h-2zM9 13h6v2H9z";
pub(super) const DOCTOR: &str = "M3 12h4l2.5-6 4 12 2.5-6h5";
pub(super) const MORE: &str = "M5 12h.01M12 12h.01M19 12h.01";
pub(super) const PERSON: &str = "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4.5 20a7.5 7.5 0 0 1 15 0";
pub(super) const CAMERA: &str =
    "M4 8V5a1 1 0 0 1 1-1h3M16 4h3a1 1 0 0 1 1 1v3M20 16v3a1 1 0 0 1-1 1h-3M8 20H5a1 1 0 0 1-1-1v-3M4 12h16";
pub(super) const PHOTO: &str = "M4 8h3l2-3h6l2 3h3v11H4zM12 17a4 4 0 1 0 0-8 4 4 0 0 0 0 8z";
pub(super) const BLINK: &str = "M12 4V2M12 22v-2M4 12H2M22 12h-2M6.3 6.3 5 5M19 19l-1.3-1.3M6.3 17.7 5 19M19 5l-1.3 1.3M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8z";
pub(super) const SHARE: &str = "M12 15V4M8 8l4-4 4 4M5 13v6h14v-6";
pub(super) const PEN: &str = "M4 20l1-4L16 5l3 3L8 19zM13 8l3 3";
pub(super) const ROOM: &str = "M4 11l8-7 8 7M6 10v10h12V10M10 20v-6h4v6";
pub(super) const BIN: &str = "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5";
pub(super) const CHECK: &str = "M4 12l5 5L20 6";

/// Only seen: the words beside it say the same.
pub(super) fn draw(path: &str) -> Markup {
    html! { svg.icon viewBox="0 0 24 24" aria-hidden="true" focusable="false" { path d=(path) {} } }
}
