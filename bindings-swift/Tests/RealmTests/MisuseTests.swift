//  What callers do wrong, and at the wrong time: it ends in an error. Nothing crashes, and nothing hangs.

import Dispatch
import Foundation
import Realm
import XCTest

final class MisuseTests: XCTestCase {
    private func folder() throws -> String {
        try XCTUnwrap(ProcessInfo.processInfo.environment["REALM_CONFORMANCE"])
    }

    private func tiny() async throws -> (Realm, Model) {
        let realm = try Realm(threads: 2, device: "cpu")
        return (realm, try await realm.loadModel("\(try folder())/tiny.gguf", options: LoadOptions(kvTokens: 4096)))
    }

    private func story(_ tokens: UInt64) -> Request {
        Request(prompt: .text("Once upon a time"), maxTokens: tokens, temperature: 0, ignoreEos: true)
    }

    private func waitForNoPages(_ model: Model) async throws {
        for _ in 0..<1000 where model.metrics().kv.used > 0 { try await Task.sleep(nanoseconds: 10_000_000) }
        XCTAssertEqual(model.metrics().kv.used, 0)
    }

    /// Expects an error with this code, whose message has these words.
    private func refused(
        _ code: String, _ words: String = "", line: UInt = #line, _ call: () async throws -> Any
    ) async {
        do {
            XCTFail("it gave \(String(describing: try await call()).prefix(200))", line: line)
        } catch let error as RealmError {
            XCTAssertEqual(error.code, code, error.message, line: line)
            XCTAssertTrue(words.isEmpty || error.message.contains(words), error.message, line: line)
        } catch {
            XCTFail("\(error)", line: line)
        }
    }

    func testWhatMeansNothingIsRefused() async throws {
        let (realm, model) = try await tiny()
        let wrong = "invalid-argument"
        await refused(wrong, "threads is 0") { try Realm(threads: 0) }
        await refused(wrong, "threads") { try Realm(threads: .max) }
        await refused("unsupported", "abacus") { try Realm(device: "abacus") }
        let requests: [(String, (inout Request) -> Void)] = [
            ("temperature", { $0.temperature = -1 }), ("temperature", { $0.temperature = .nan }), ("top_p", { $0.topP = 2 }),
            ("min_p", { $0.minP = -.infinity }), ("typical_p", { $0.typicalP = .nan }), ("temperature", { $0.temperature = .infinity }),
            ("top_p", { $0.topP = .nan }), ("repetition_penalty", { $0.repetitionPenalty = .infinity }),
            ("frequency_penalty", { $0.frequencyPenalty = .nan }), ("presence_penalty", { $0.presencePenalty = -.infinity }),
            ("adapter_scale", { $0.adapterScale = .nan }), ("logit_bias", { $0.logitBias = [5: .nan] }),
            ("logit_bias", { $0.logitBias = [5: .infinity] }), ("uniqueItems", { $0.guide = .jsonSchema(#"{"type":"array","uniqueItems":true}"#) }),
            ("line 1", { $0.guide = .lark("root ::= [z") }), ("repetition_penalty", { $0.repetitionPenalty = 0 }),
            ("logit_bias", { $0.logitBias = [.max: 1] }), ("banned_tokens", { $0.bannedTokens = [.max] }),
            ("`jsonSchema` is no JSON", { $0.guide = .jsonSchema("{") }),
            ("regex", { $0.guide = .regex("(") }), ("grammar", { $0.guide = .lark("begin: A") }), ("logprobs", { $0.logprobs = .max }),
            ("`tools` is no JSON", { $0.tools = ["{"] }),
            ("`input` is no JSON", { $0.input = "{" }),
            ("`templateVariables` is no JSON", { $0.templateVariables = ["a": "{"] }),
            ("token", { $0.prompt = .tokens([.max]) }), ("no tokens", { $0.prompt = .tokens([]) }),
            ("`fields`", { $0.prompt = .chat([Message(role: "user", content: "a", fields: "[]")]) }),
        ]
        for (words, change) in requests {
            var request = story(1)
            change(&request)
            await refused(wrong, words) { try await model.generate(request) }
        }
        for limits in [
            Limits(weight: -1), Limits(weight: .nan), Limits(maxConcurrent: 0), Limits(requestTimeout: .nan),
            Limits(requestTimeout: -1), Limits(programMemory: 0), Limits(programCpuTime: -.infinity),
        ] {
            await refused(wrong) { try realm.tenant("a", limits: limits) }
        }
        await refused("not-found", "no-such-model") { try await realm.loadModel("no-such-model") }
        await refused("io", "no/such/file.wasm") { try await realm.loadProgram(path: "no/such/file.wasm") }
        await refused("invalid-program") { try await realm.compileProgram(wasm: Data("no".utf8)) }
        await refused("invalid-program") { try await realm.tenant("a").compileProgram(wasm: Data("no".utf8)) }
        await refused("io") { try await model.loadAdapter(path: "no/such/adapter") }
        await refused(wrong) { try await model.restoreSequence(bytes: Data("no".utf8)) }
        await refused(wrong) { try await model.restoreForeignSequence(bytes: Data("no".utf8)) }
        await refused(wrong, "snapshot_key") { try Realm(device: "cpu", snapshotKey: Data("short".utf8)) }
        await refused(wrong) { try model.decode([.max]) }
        await refused(wrong) { try await model.score(tokens: []) }
        await refused(wrong) { try await model.embedTokens(tokens: [.max]) }
        await refused(wrong) { try await model.logLikelihood(prompt: [], continuation: []) }
        await refused(wrong) { try model.sequence().append(tokens: [.max]) }
        await refused(wrong) { try await model.sequence().forward() }
    }

    func testNumbersMayBeAsLargeAsTheyGet() async throws {
        let (realm, model) = try await tiny()
        var request = story(2)
        request.topK = .max
        request.repetitionWindow = .max
        request.repetitionPenalty = 1.1
        request.seed = .max
        let answer = try await model.generate(request)
        XCTAssertEqual(answer.usage.generatedTokens, 2)
        let limits = Limits(maxConcurrent: .max, maxQueued: .max, kvTokens: .max, tokensPerMinute: .max, requestTimeout: 1e9)
        let seen = try realm.tenant("a", limits: limits).model(model: model)
        _ = try await seen.generate(story(2))
        // Ends with the context.
        request.maxTokens = .max
        let whole = try await model.generate(request)
        XCTAssertEqual(whole.finishReason, .length)
        let name = "\(try folder())/tiny.gguf"
        await refused("limit-exceeded", "kv_tokens") {
            try await realm.loadModel(name, options: LoadOptions(kvTokens: .max))
        }
        let sequence = try model.sequence()
        try sequence.append(tokens: [4, 5])
        try sequence.truncate(length: .max)
        XCTAssertEqual(try sequence.tokens(), [4, 5])
    }

    func testAfterTheEndThereIsNothing() async throws {
        let (_, model) = try await tiny()
        let ended = try model.start(request: story(3))
        _ = try await ended.complete()
        let afterwards = try await ended.nextChunk()
        XCTAssertNil(afterwards)
        ended.cancel()
        XCTAssertFalse(ended.isCancelled())
        let cancelled = try model.start(request: story(4000))
        _ = try await cancelled.nextChunk()
        cancelled.cancel()
        cancelled.cancel()
        let none = try await cancelled.nextChunk()
        XCTAssertNil(none)
        await refused("cancelled") { try await cancelled.complete() }
        XCTAssertTrue(cancelled.isCancelled())
        // In a task that is cancelled already nothing begins.
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await model.generate(self.story(1))
        }
        do {
            _ = try await task.value
            XCTFail("it ran")
        } catch is CancellationError {
        }
        try await waitForNoPages(model)
    }

    func testObjectsKeepWhatTheyNeed() async throws {
        func generation() async throws -> (Generation, TokenSequence, Tenant) {
            let (realm, model) = try await tiny()
            let tenant = try realm.tenant("t")
            tenant.setProgram(program: try await realm.loadProgram(path: "\(try folder())/programs/hello.wasm"))
            _ = try tenant.model(model: model)
            let sequence = try model.sequence()
            try sequence.append(tokens: [4, 5])
            return (try model.start(request: story(100)), sequence, tenant)
        }
        // The runtime and the model are gone.
        let (going, sequence, tenant) = try await generation()
        let answer = try await going.complete()
        XCTAssertEqual(answer.usage.generatedTokens, 100)
        let forwarded = try await sequence.forward()
        XCTAssertEqual(forwarded.rows, 1)
        XCTAssertTrue(tenant.hasProgram())
    }

    func testWhatIsThrownInALoopEndsTheRequest() async throws {
        struct Mine: Error {}
        let (_, model) = try await tiny()
        do {
            for try await _ in try model.stream(story(4000)) { throw Mine() }
            XCTFail("no error")
        } catch is Mine {
        }
        try await waitForNoPages(model)
    }

    func testTasksMayReadOneStream() async throws {
        let (_, model) = try await tiny()
        let stream = try model.stream(story(200))
        let tokens = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var tokens = 0
                    for try await chunk in stream { tokens += chunk.tokens.count }
                    return tokens
                }
            }
            return try await group.reduce(0, +)
        }
        XCTAssertEqual(tokens, 200)
    }

    func testASequenceIsUsedByOneAtATime() async throws {
        let (_, model) = try await tiny()
        try await useBySeveral(model)
        try await waitForNoPages(model)
    }

    private func useBySeveral(_ model: Model) async throws {
        let sequence = try model.sequence()
        try sequence.append(tokens: [UInt32](repeating: 4, count: 600))
        let forward = Task { try await sequence.forward().rows }
        // More than the pool of Swift's tasks has threads: were they to wait, nobody could take the forward's result.
        let refusals = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<64 {
                group.addTask {
                    do {
                        for _ in 0..<20 {
                            _ = try sequence.tokens()
                            await Task.yield()
                        }
                        return 0
                    } catch {
                        XCTAssertTrue("\(error)".contains("wait for it"), "\(error)")
                        return 1
                    }
                }
            }
            return await group.reduce(0, +)
        }
        print("\(refusals) of 64 were refused")
        let rows = try await forward.value
        XCTAssertEqual(rows, 1)
        XCTAssertEqual(try sequence.tokens().count, 600)
    }

    func testThreadsAndActorsUseOneModel() async throws {
        let (realm, model) = try await tiny()
        let expected = try await model.generate(story(20)).text
        // Threads that no task runs on.
        let lines = Lines()
        let threads = (0..<4).map { _ in
            Thread {
                let tokens = model.encode("Once upon a time")
                lines.add(.text((try? model.decode(tokens)) ?? "none"))
                lines.add(.text((try? realm.tenant("t").name()) ?? "none"))
            }
        }
        threads.forEach { $0.start() }
        // The main thread's loop, the pool's, and a queue's.
        let onMain = Task { @MainActor in try await model.generate(self.story(20)).text }
        let detached = Task.detached { try await model.generate(self.story(20)).text }
        let onQueue: String = try await withCheckedThrowingContinuation { continuation in
            DispatchQueue(label: "a queue").async {
                Task {
                    do {
                        continuation.resume(returning: try await model.generate(self.story(20)).text)
                    } catch {
                        continuation.resume(throwing: error)
                    }
                }
            }
        }
        let texts = [try await onMain.value, try await detached.value, onQueue]
        XCTAssertEqual(texts, [expected, expected, expected])
        for _ in 0..<1000 where lines.all.texts.count < 8 { try await Task.sleep(nanoseconds: 10_000_000) }
        XCTAssertEqual(lines.all.texts.filter { $0 == "t" }.count, 4)
        XCTAssertEqual(lines.all.texts.count, 8)
    }

    func testCallbacksMayCallRealm() async throws {
        let (realm, model) = try await tiny()
        let path = "\(try folder())/tiny.gguf"
        let seen = Lines()
        _ = try await realm.loadModel(path, options: LoadOptions(kvTokens: 256)) { progress in
            seen.add(.text("\(progress.stage)"))
            _ = model.encode("a")
            XCTAssertNil(try? realm.tenant("x", limits: Limits(weight: -1)))
        }
        XCTAssertFalse(seen.all.texts.isEmpty)
        // A log that ends itself, and that is told of what it does.
        try Realm.log(upTo: .trace) { _, _, _ in
            _ = try? realm.tenant("x").model(model: model)
            try? Realm.log(upTo: .trace, nil)
        }
        _ = try await model.generate(story(2))
        try Realm.log(upTo: .trace, nil)
        // A tool that asks the model.
        let tenant = try realm.tenant("acme")
        tenant.setProgram(program: try await realm.loadProgram(path: "\(try folder())/programs/call-tool.wasm"))
        var grants = Grants()
        grants.allowTool("weather", json: { _ in
            let answer = try await model.generate(self.story(3))
            return "{\"tokens\": \(answer.usage.generatedTokens)}"
        })
        try tenant.setGrants(grants: grants)
        let answer = try await tenant.model(model: model).generate(story(1))
        XCTAssertEqual(answer.text, #"{"tokens": 3}"#)
    }

    func testWhatToolsDoWrongIsToldToTheProgram() async throws {
        struct Wrong: Codable { let degrees: Int }
        struct NoNumber: Codable { let value: Double }
        let (realm, model) = try await tiny()
        let tenant = try realm.tenant("acme")
        tenant.setProgram(program: try await realm.loadProgram(path: "\(try folder())/programs/call-tool.wasm"))
        let seen = try tenant.model(model: model)
        var grants = Grants()
        // The program asks with `{"city": …}`.
        grants.allowTool("weather") { (asked: Wrong) -> Wrong in asked }
        try tenant.setGrants(grants: grants)
        await refused("failed", "degrees") { try await seen.generate(self.story(1)) }
        grants.allowTool("weather") { (_: [String: String]) -> NoNumber in NoNumber(value: .nan) }
        try tenant.setGrants(grants: grants)
        await refused("failed") { try await seen.generate(self.story(1)) }
        grants.allowTool("weather", json: { _ in "no JSON" })
        try tenant.setGrants(grants: grants)
        let passedOn = try await seen.generate(story(1))
        XCTAssertEqual(passedOn.text, "no JSON")
        grants.allowTool("weather", json: { _ in throw CancellationError() })
        try tenant.setGrants(grants: grants)
        await refused("failed") { try await seen.generate(self.story(1)) }
        // One that never answers keeps nobody from ending.
        grants.allowTool("weather", json: { _ in
            try await Task.sleep(nanoseconds: 3_600_000_000_000)
            return "null"
        })
        try tenant.setGrants(grants: grants)
        let task = Task { try await seen.generate(self.story(1)) }
        while tenant.running() == 0 { try await Task.sleep(nanoseconds: 1_000_000) }
        task.cancel()
        do {
            _ = try await task.value
            XCTFail("it ended by itself")
        } catch is CancellationError {
        }
        try tenant.setLimits(limits: Limits(requestTimeout: 0.1))
        await refused("limit-exceeded") { try await seen.generate(self.story(1)) }
        XCTAssertEqual(tenant.running(), 0)
    }

    func testASignalEndsARequest() async throws {
        let (_, model) = try await tiny()
        let generation = try model.start(request: story(4000))
        _ = try await generation.nextChunk()
        signal(SIGINT, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
        source.setEventHandler { generation.cancel() }
        await withCheckedContinuation { registered in
            source.setRegistrationHandler { registered.resume() }
            source.resume()
        }
        kill(getpid(), SIGINT)
        // Nobody reads meanwhile, so that it can't have ended by itself.
        for _ in 0..<1000 where !generation.isCancelled() { try await Task.sleep(nanoseconds: 10_000_000) }
        await refused("cancelled") { try await generation.complete() }
        source.cancel()
        signal(SIGINT, SIG_DFL)
        try await waitForNoPages(model)
    }
}
