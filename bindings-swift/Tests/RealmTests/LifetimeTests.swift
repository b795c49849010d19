//  What ends requests, what callers do wrong, and what they do to memory.

import Foundation
import Realm
import XCTest

final class LifetimeTests: XCTestCase {
    /// Of single characters and two layers; `REALM_CONFORMANCE` has it.
    private func tiny() async throws -> (Realm, Model) {
        let realm = try Realm(threads: 2, device: "cpu")
        return (realm, try await realm.loadModel("\(try folder())/tiny.gguf", options: LoadOptions(kvTokens: 4096)))
    }

    private func folder() throws -> String {
        try XCTUnwrap(ProcessInfo.processInfo.environment["REALM_CONFORMANCE"])
    }

    private func story(_ tokens: UInt64) -> Request {
        Request(prompt: .text("Once upon a time"), maxTokens: tokens, temperature: 0, ignoreEos: true)
    }

    private func waitForNoPages(_ model: Model) async throws {
        for _ in 0..<1000 where model.metrics().kv.used > 0 { try await Task.sleep(nanoseconds: 10_000_000) }
        XCTAssertEqual(model.metrics().kv.used, 0)
    }

    func testCancellingATaskEndsItsGeneration() async throws {
        let (_, model) = try await tiny()
        let request = story(4000)
        let task = Task { try await model.generate(request) }
        while model.metrics().kv.used == 0 { try await Task.sleep(nanoseconds: 1_000_000) }
        task.cancel()
        do {
            _ = try await task.value
            XCTFail("it ended by itself")
        } catch is CancellationError {
        }
        try await waitForNoPages(model)
        XCTAssertEqual(model.metrics().served.cancelled, 1)
    }

    func testCancellingATaskEndsItsStream() async throws {
        let (_, model) = try await tiny()
        let stream = try model.stream(story(4000))
        let task = Task {
            var chunks = 0
            for try await _ in stream { chunks += 1 }
            return chunks
        }
        while model.metrics().kv.used == 0 { try await Task.sleep(nanoseconds: 1_000_000) }
        task.cancel()
        let chunks = try await task.value
        XCTAssertLessThan(chunks, 4000)
        try await waitForNoPages(model)
    }

    func testDroppingAStreamFreesItsPages() async throws {
        let (_, model) = try await tiny()
        func readOne() async throws {
            for try await chunk in try model.stream(story(4000)) {
                XCTAssertEqual(chunk.tokens.count, 1)
                break
            }
        }
        try await readOne()
        try await waitForNoPages(model)
    }

    func testAStreamIsTheText() async throws {
        let (_, model) = try await tiny()
        let whole = try await model.generate(story(40))
        var text = ""
        for try await chunk in try model.stream(story(40)) { text += chunk.text }
        XCTAssertEqual(text, whole.text)
        XCTAssertEqual(whole.usage.generatedTokens, 40)
    }

    func testWhatAToolThrowsIsToldToTheProgram() async throws {
        struct Weather: Codable { let city: String }
        struct Closed: Error, CustomStringConvertible { let description = "the station is closed" }
        let (realm, model) = try await tiny()
        let tenant = try realm.tenant("acme")
        tenant.setProgram(program: try await realm.loadProgram(path: "\(try folder())/programs/call-tool.wasm"))
        let seen = try tenant.model(model: model)
        var grants = Grants()
        grants.allowTool("weather") { (asked: Weather) async throws -> Weather in
            try await Task.sleep(nanoseconds: 5_000_000)
            return Weather(city: asked.city.uppercased())
        }
        try tenant.setGrants(grants: grants)
        let answer = try await seen.generate(story(1))
        XCTAssertEqual(answer.text, #"{"city":"PARIS"}"#)
        grants.allowTool("weather") { (_: Weather) async throws -> Weather in throw Closed() }
        try tenant.setGrants(grants: grants)
        do {
            _ = try await seen.generate(story(1))
            XCTFail("no error")
        } catch RealmError.Failed(let message) {
            XCTAssertTrue(message.contains("the station is closed"), message)
        }
    }

    func testRealmsLogGoesToAClosure() async throws {
        let lines = Lines()
        try Realm.log(upTo: .info) { level, from, message in
            lines.add(.text("\(level) \(from) \(message)"))
        }
        let realm = try Realm()
        try Realm.log(upTo: .info, nil)
        let model = try await realm.loadModel("\(try folder())/tiny.gguf")
        // It says so once in a process, where there is no GPU.
        // On a thread of its own.
        let said = { lines.all.texts.contains { $0.hasPrefix("info realm") && $0.contains("running on the CPU") } }
        for _ in 0..<100 where !said() { try await Task.sleep(nanoseconds: 10_000_000) }
        XCTAssertTrue(said() || model.info().device.contains("cuda"), lines.all.source)
    }

    func testErrorsHaveCodesAndMessages() async throws {
        let (realm, _) = try await tiny()
        XCTAssertThrowsError(try realm.tenant("x", limits: Limits(weight: -1))) { error in
            XCTAssertEqual((error as? RealmError)?.code, "invalid-argument")
            XCTAssertTrue("\(error)".hasPrefix("invalid-argument: ") && "\(error)".contains("weight"), "\(error)")
        }
        do {
            _ = try await realm.loadModel("no-such-model")
            XCTFail("no error")
        } catch RealmError.NotFound(let message) {
            XCTAssertTrue(message.contains("smollm2-135m"), message)
        }
    }

    func testTasksShareAGeneration() async throws {
        let (_, model) = try await tiny()
        let generation = try model.start(request: story(200))
        let tokens = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var tokens = 0
                    while let chunk = try await generation.nextChunk() { tokens += chunk.tokens.count }
                    return tokens
                }
            }
            return try await group.reduce(0, +)
        }
        XCTAssertEqual(tokens, 200)
    }

    /// Tasks that end at any moment. `REALM_STRESS_SECONDS` says for how long; without it, it is a moment.
    func testWhateverReadersDoTheModelAnswers() async throws {
        let (_, model) = try await tiny()
        let seconds = Double(ProcessInfo.processInfo.environment["REALM_STRESS_SECONDS"] ?? "1") ?? 1
        let end = Date().addingTimeInterval(seconds)
        while Date() < end {
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<8 {
                    group.addTask { for _ in 0..<8 { try? await self.leaveSomewhere(model) } }
                }
            }
            for _ in 0..<1000 where model.metrics().served.running > 0 { try await Task.sleep(nanoseconds: 10_000_000) }
            XCTAssertEqual(model.metrics().served.running, 0)
            try await waitForNoPages(model)
            let answer = try await model.generate(story(2))
            XCTAssertEqual(answer.usage.generatedTokens, 2)
        }
    }

    private func leaveSomewhere(_ model: Model) async throws {
        let request = story(UInt64.random(in: 1...200))
        let moment = UInt64.random(in: 0...4_000_000)
        switch Int.random(in: 0..<4) {
        case 0:
            let task = Task { try await model.generate(request) }
            try await Task.sleep(nanoseconds: moment)
            task.cancel()
            _ = try? await task.value
        case 1:
            let task = Task { for try await _ in try model.stream(request) {} }
            try await Task.sleep(nanoseconds: moment)
            task.cancel()
            _ = try? await task.value
        case 2:
            for try await _ in try model.stream(request) {
                try await Task.sleep(nanoseconds: moment / 20)
                if Bool.random() { break }
            }
        default:
            // Two tasks wait for one generation's chunks: one is cancelled, and nobody cancels the generation.
            let generation = try model.start(request: request)
            let readers = (0..<2).map { _ in Task { while try await generation.nextChunk() != nil {} } }
            try await Task.sleep(nanoseconds: moment)
            readers[0].cancel()
            if Bool.random() { generation.cancel() }
            for reader in readers { _ = try? await reader.value }
        }
    }

    func testAThousandCyclesLeaveMemoryFlat() async throws {
        let (realm, model) = try await tiny()
        let big = try await realm.loadModel("smollm2-135m", options: LoadOptions(kvTokens: 512))
        let folder = try folder()
        func cycle() async throws {
            let tenant = try realm.tenant("cycle", limits: Limits(weight: 2, models: [model.info().reference]))
            let seen = try tenant.model(model: model)
            _ = try await seen.generate(story(1))
            for try await _ in try seen.stream(story(1000)) { break }
            let sequence = try seen.sequence()
            try sequence.append(tokens: [4, 5])
            let forwarded = try await sequence.forward()
            XCTAssertEqual(forwarded.values.count, 100)
            XCTAssertEqual(try sequence.fork().tokens(), [4, 5])
            let restored = try await seen.restoreSequence(bytes: try await sequence.save())
            XCTAssertEqual(try restored.tokens(), [4, 5])
            let adapter = try await big.loadAdapter(path: "\(folder)/adapter")
            XCTAssertEqual(big.adapted(adapter: adapter).info().layers, big.info().layers)
            var grants = Grants(store: Store(quota: 10))
            grants.allowLog { _, _, _ in }
            grants.allowTool("a", json: { $0 })
            try tenant.setGrants(grants: grants)
            tenant.setProgram(program: try await realm.loadProgram(path: "\(folder)/programs/hello.wasm"))
            let answer = try await seen.generate(story(1))
            XCTAssertEqual(answer.text, "hello")
            XCTAssertThrowsError(try seen.decode([999_999]))
        }
        try await staysFlat("small objects", first: 300, then: 1000, most: 4096, cycle)
        try await waitForNoPages(model)
    }

    func testRuntimesAndModelsLeaveMemoryFlat() async throws {
        let folder = try folder()
        func cycle(_ name: String) async throws {
            let realm = try Realm(threads: 1, device: "cpu")
            let model = try await realm.loadModel(name, options: LoadOptions(kvTokens: 512))
            _ = try await model.generate(story(1))
        }
        func smallCycle() async throws {
            let realm = try Realm(threads: 1, device: "cpu")
            let model = try await realm.loadModel("\(folder)/tiny.gguf", options: LoadOptions(kvTokens: 256))
            let tokenizer = try await realm.loadTokenizer(model: "\(folder)/tiny.gguf")
            XCTAssertEqual(tokenizer.encode(text: "a"), model.encode("a"))
            let tenant = try realm.tenant("t")
            tenant.setProgram(program: try await realm.loadProgram(path: "\(folder)/programs/hello.wasm"))
            let answer = try await tenant.model(model: model).generate(story(1))
            XCTAssertEqual(answer.text, "hello")
            _ = try await model.generate(story(1))
        }
        // What the allocator keeps for next time is there after a few, for each of its arenas: every load is a thread of its own.
        try await staysFlat("whole models", first: 24, then: 12, most: 10 * 1024) { try await cycle("smollm2-135m") }
        try await staysFlat("runtimes and models", first: 200, then: 1000, most: 4096, smallCycle)
    }

    /// Has memory grow by no more than `most` KiB in `then` cycles.
    private func staysFlat(
        _ what: String, first: Int, then: Int, most: Int, _ cycle: () async throws -> Void
    ) async throws {
        for _ in 0..<first { try await cycle() }
        let before = resident()
        for _ in 0..<then { try await cycle() }
        let after = resident()
        print("\(then) cycles, \(what): from \(before) to \(after) KiB resident")
        XCTAssertLessThan(after - before, most, what)
    }

    /// KiB; 0 where there is no /proc.
    private func resident() -> Int {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") } ?? "0"
        return Int(line.filter(\.isNumber)) ?? 0
    }
}
