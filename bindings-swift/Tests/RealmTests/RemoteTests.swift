//  A program that uses a server's models: `REALM_SERVER` is the address of `realm serve smollm2-135m`, and `REALM_KEY` a key of the
//  tenant `acme`.

import Foundation
import Realm
import XCTest

final class RemoteTests: XCTestCase {
    private let answer = "The capital of France is Paris."

    private func server() throws -> (String, String) {
        let environment = ProcessInfo.processInfo.environment
        return (try XCTUnwrap(environment["REALM_SERVER"]), try XCTUnwrap(environment["REALM_KEY"]))
    }

    private func question() -> Request {
        Request(prompt: .chat([.user("What is the capital of France? Answer in one sentence.")]), maxTokens: 16, temperature: 0)
    }

    private func refused(_ code: String, line: UInt = #line, _ call: () async throws -> Any) async {
        do {
            XCTFail("it gave \(String(describing: try await call()).prefix(200))", line: line)
        } catch let error as RealmError {
            XCTAssertEqual(error.code, code, error.message, line: line)
        } catch {
            XCTFail("\(error)", line: line)
        }
    }

    func testOneLineMakesAProgramUseAServer() async throws {
        let (url, key) = try server()
        let realm = try await Realm.connect(url: url, key: key)
        XCTAssertTrue(realm.isRemote())
        let model = try await realm.loadModel("smollm2-135m")
        let whole = try await model.generate(question())
        XCTAssertEqual(whole.text, answer)
        var text = ""
        for try await chunk in try model.stream(question()) { text += chunk.text }
        XCTAssertEqual(text, answer)
        let tenant = try realm.tenant("acme")
        let seen = try await tenant.model(model: model).generate(question())
        XCTAssertEqual(seen.text, answer)
    }

    func testCancellingATaskEndsItsGenerationThere() async throws {
        let (url, key) = try server()
        let model = try await Realm.connect(url: url, key: key).loadModel("smollm2-135m")
        let stream = try model.stream(Request(prompt: .text("Once upon a time"), maxTokens: 4000, ignoreEos: true))
        let (begun, beginning) = AsyncStream<Void>.makeStream()
        let task = Task {
            var chunks = 0
            for try await _ in stream {
                chunks += 1
                beginning.yield()
            }
            return chunks
        }
        for await _ in begun { break }
        task.cancel()
        let chunks = try await task.value
        XCTAssertLessThan(chunks, 4000)
    }

    func testWhatStaysAtTheServerThrows() async throws {
        let (url, key) = try server()
        await refused("denied") { try await Realm.connect(url: url) }
        await refused("denied") { try await Realm.connect(url: url, key: "rk_wrong") }
        await refused("invalid-argument") { try await Realm.connect(url: "localhost") }
        await refused("io") { try await Realm.connect(url: "http://127.0.0.1:1") }
        let realm = try await Realm.connect(url: url, key: key)
        await refused("not-found") { try await realm.loadModel("absent") }
        await refused("denied") { try realm.tenant("other") }
        await refused("unsupported") { try await realm.loadModel("smollm2-135m", options: LoadOptions(kvTokens: 64)) }
    }
}
