//! The page: three small files, part of the program, so that a browser needs nothing from elsewhere.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asset {
    pub(super) path: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

pub(super) const ASSETS: [Asset; 4] = [
    Asset { path: "/", kind: "text/html; charset=utf-8", text: include_str!("../page/index.html") },
    Asset { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("../page/page.css") },
    Asset { path: "/page.js", kind: "text/javascript; charset=utf-8", text: include_str!("../page/page.js") },
    Asset { path: "/icon.svg", kind: "image/svg+xml", text: include_str!("../page/icon.svg") },
];

/// Nothing from elsewhere, nothing within the text, in nobody's frame.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
