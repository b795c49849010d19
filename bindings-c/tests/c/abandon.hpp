// Readers that leave at any moment.
#pragma once

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "handles.hpp"

// Starts a request of up to so many tokens, and leaves it somewhere.
inline void leave_somewhere(RealmModel *model, std::minstd_rand &luck, size_t tokens) {
    Outcome out;
    auto request = own(TRY(out, realm_request_text("Once upon a time", &out.error)));
    realm_request_set_temperature(request.get(), 0);
    realm_request_set_max_tokens(request.get(), 1 + luck() % tokens);
    realm_request_set_ignore_eos(request.get(), true);
    auto moment = std::chrono::microseconds(luck() % 4000);
    auto stream = [&] { return TRY(out, realm_model_stream(model, request.get(), &out.error)); };
    // Reads to the end, or to a cancel.
    auto read = [](RealmGeneration *generation) {
        RealmChunk *chunk = nullptr;
        while (realm_generation_next(generation, &chunk, nullptr) && chunk != nullptr) realm_chunk_free(chunk);
    };
    switch (luck() % 5) {
        case 0: {
            // Freed by the thread that reads, slowly.
            auto generation = own(stream());
            for (unsigned i = luck() % 10; i > 0; i--) {
                RealmChunk *chunk = nullptr;
                realm_generation_next(generation.get(), &chunk, nullptr);
                realm_chunk_free(chunk);
                std::this_thread::sleep_for(moment / 20);
            }
            break;
        }
        case 1: {
            // Cancelled by another thread, with three that wait.
            auto generation = own(stream());
            std::thread readers[3];
            for (auto &reader : readers) reader = std::thread(read, generation.get());
            std::this_thread::sleep_for(moment);
            realm_generation_cancel(generation.get());
            for (auto &reader : readers) reader.join();
            break;
        }
        case 2: {
            // Never read.
            auto generation = own(stream());
            std::this_thread::sleep_for(moment);
            break;
        }
        case 3: {
            // A callback that ends it.
            unsigned left = luck() % 20;
            realm_model_each(
                model, request.get(), [](void *left, const RealmChunk *) { return (*static_cast<unsigned *>(left))-- > 0; },
                &left, nullptr);
            break;
        }
        default: {
            // A sequence that is freed after a forward.
            auto sequence = own(TRY(out, realm_model_sequence(model, &out.error)));
            const uint32_t prompt[] = {1, 2, 3, 4, 5};
            TRY(out, realm_sequence_append(sequence.get(), prompt, 5, &out.error));
            own(TRY(out, realm_sequence_forward(sequence.get(), REALM_OUTPUT_LAST_LOGITS, &out.error)));
        }
    }
}
