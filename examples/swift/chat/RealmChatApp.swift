//  A chat with a model on this device. See ../README.md: this file is not compiled by the project's tests.

import SwiftUI

@main
struct RealmChatApp: App {
    var body: some Scene {
        WindowGroup {
            ChatView()
        }
    }
}

struct ChatView: View {
    @StateObject private var chat = Chat()
    @State private var draft = ""

    var body: some View {
        VStack(spacing: 0) {
            ScrollViewReader { scroll in
                ScrollView {
                    LazyVStack(alignment: .leading, spacing: 12) {
                        ForEach(chat.lines) { line in
                            Text(line.text.isEmpty ? "…" : line.text)
                                .padding(10)
                                .background(line.isUser ? Color.accentColor.opacity(0.2) : Color.secondary.opacity(0.15))
                                .clipShape(RoundedRectangle(cornerRadius: 12))
                                .frame(maxWidth: .infinity, alignment: line.isUser ? .trailing : .leading)
                                .id(line.id)
                        }
                    }
                    .padding()
                }
                .onChange(of: chat.lines.last?.text) { _ in scroll.scrollTo(chat.lines.last?.id, anchor: .bottom) }
            }
            Divider()
            switch chat.state {
            case .loading(let part):
                ProgressView("Loading the model", value: part).padding()
            case .failed(let why):
                Text(why).foregroundColor(.red).padding()
            case .ready, .answering:
                HStack {
                    TextField("Message", text: $draft).onSubmit(send)
                    if chat.state == .answering {
                        Button("Stop", action: chat.stop)
                    } else {
                        Button("Send", action: send).disabled(draft.isEmpty)
                    }
                }
                .padding()
            }
        }
        .task { await chat.load() }
    }

    private func send() {
        chat.send(draft)
        draft = ""
    }
}
