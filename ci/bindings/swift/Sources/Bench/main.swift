//  What `core/realm/examples/streams.rs` does, through the Swift package: `Bench THREADS`.

import Dispatch
import Foundation
import Realm

let threads = UInt64(CommandLine.arguments[1])
let realm = try Realm(threads: threads, device: "cpu")
let tenant = try realm.tenant("bench")
let model = try tenant.model(model: await realm.loadModel("smollm2-135m", options: LoadOptions(kvTokens: 16384)))

func start(_ tokens: UInt64) throws -> AsyncThrowingStream<Chunk, any Error> {
    try model.stream(
        Request(
            prompt: .tokens([504, 3575, 282, 4649, 314]), maxTokens: tokens, temperature: 0, ignoreEos: true, speculation: .off))
}

/// Microseconds.
func now() -> Double { Double(DispatchTime.now().uptimeNanoseconds) / 1000 }

/// Processor time of all threads that are not Realm's, in microseconds: tasks move between those of Swift's pool.
func readersTime() -> Double {
    let threads = "/proc/self/task"
    func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
    let times = ((try? FileManager.default.contentsOfDirectory(atPath: threads)) ?? []).map { thread in
        if text("\(threads)/\(thread)/comm").hasPrefix("realm") { return 0.0 }
        return Double(text("\(threads)/\(thread)/schedstat").split(separator: " ").first ?? "0") ?? 0
    }
    return times.reduce(0, +) / 1000
}

func stream(_ streams: Int, _ tokens: UInt64) async throws -> String {
    let (before, began) = (readersTime(), now())
    try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<streams {
            group.addTask { for try await _ in try start(tokens) {} }
        }
        try await group.waitForAll()
    }
    let all = Double(streams) * Double(tokens)
    return "{\"rate\": \(all / (now() - began) * 1e6), \"reader_us\": \((readersTime() - before) / all)}"
}

func queued(_ streams: Int, _ tokens: UInt64) async throws -> String {
    let ready = try (0..<streams).map { _ in try start(tokens) }
    while tenant.running() + tenant.waiting() > 0 { try await Task.sleep(nanoseconds: 5_000_000) }
    let began = now()
    var chunks = 0
    for stream in ready {
        for try await chunk in stream { chunks += chunk.text.utf8.count >= 0 ? 1 : 0 }
    }
    return "{\"us\": \((now() - began) / Double(chunks))}"
}

func call(_ count: Int) async throws -> String {
    var times: [Double] = []
    for _ in 0..<count {
        let began = now()
        for try await chunk in try start(1) {
            let timings = chunk.finish!.timings
            times.append(now() - began - (timings.queued + timings.prefill + timings.decode) * 1e6)
            break
        }
    }
    return "{\"us\": \(times.sorted()[count / 2])}"
}

setvbuf(stdout, nil, _IOLBF, 0)
// The first run touches memory for the first time.
_ = try await stream(1, 10)
print("{}")
while let line = readLine() {
    let words = line.split(separator: " ")
    let numbers = words.dropFirst().map { Int($0)! }
    switch words[0] {
    case "stream": print(try await stream(numbers[0], UInt64(numbers[1])))
    case "queued": print(try await queued(numbers[0], UInt64(numbers[1])))
    default: print(try await call(numbers[0]))
    }
}
