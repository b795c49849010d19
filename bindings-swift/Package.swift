// swift-tools-version:5.9
import PackageDescription

// What Realm's Swift calls: on Apple's systems an XCFramework, which `build-xcframework` makes, elsewhere a shared library that the
// package finds by pkg-config.
#if os(macOS)
let core: Target = .binaryTarget(name: "CRealm", path: "CRealm.xcframework")
#else
let core: Target = .systemLibrary(name: "CRealm", path: "Sources/CRealm", pkgConfig: "realm-swift")
#endif

let package = Package(
    name: "Realm",
    platforms: [.macOS(.v13), .iOS(.v16)],
    products: [.library(name: "Realm", targets: ["Realm"])],
    targets: [
        core,
        .target(
            name: "Realm", dependencies: ["CRealm"],
            linkerSettings: [
                .linkedFramework("Security", .when(platforms: [.macOS, .iOS])),
                .linkedFramework("CoreFoundation", .when(platforms: [.macOS, .iOS])),
            ]),
        .testTarget(name: "RealmTests", dependencies: ["Realm"]),
    ]
)
