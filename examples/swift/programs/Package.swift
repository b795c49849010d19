// swift-tools-version:5.9
import PackageDescription

let names = ["Hello", "Chat", "Tenants", "Program", "Guided", "Lists", "Session"]

let package = Package(
    name: "RealmExamples",
    platforms: [.macOS(.v13)],
    // Where the package Realm is unpacked.
    dependencies: [.package(path: "../Realm")],
    targets: names.map { .executableTarget(name: $0, dependencies: [.product(name: "Realm", package: "Realm")]) }
)
