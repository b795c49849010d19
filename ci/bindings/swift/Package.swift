// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Bench",
    platforms: [.macOS(.v13)],
    dependencies: [.package(path: "../Realm")],
    targets: [.executableTarget(name: "Bench", dependencies: [.product(name: "Realm", package: "Realm")])]
)
