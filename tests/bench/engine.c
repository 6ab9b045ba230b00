/* A fake engine for measuring proxies: it speaks OpenAI's HTTP interface as vLLM does, and costs next to nothing.
 *
 *     gcc -O2 -o engine engine.c && ./engine --port 9001 --model m
 *
 *     --host ADDRESS          127.0.0.1
 *     --port PORT             required
 *     --model NAME            m; the name in its answers
 *     --rate N                chunks a second of one stream, 0: as fast as the client reads (the default)
 *     --chunks N              chunks of a stream that doesn't say max_tokens (64)
 *     --embedding-bytes N     size of an embedding answer (4096)
 *     --in-step               chunks of all streams of one rate leave at the same moment, as from one batch;
 *                             without it the streams are spread evenly over the interval
 *
 * One thread. A chat or completion is answered at once; with "stream": true it is max_tokens events, each an HTTP chunk
 * of its own of about 200 bytes whose text is " tok0", " tok1", ..., then data: [DONE]. A paced stream is looked at once
 * a millisecond.
 *
 * A request may say otherwise in its text, where every proxy lets it pass: [rate=20] [bytes=1048576], and for testing
 * the load client [fault=status] (a 500), [fault=cut] (the connection closes in the middle of the answer) and
 * [fault=wrong] (one event is lost, or one letter of an answer is another one).
 *
 * What is not a strictly well-formed HTTP/1.1 request with a well-formed JSON object is answered 400, said on stderr, and
 * closed: a proxy that mangles requests does not go unnoticed.
 */
#define _GNU_SOURCE
#include "common.h"
#include "json.h"
#include "request.h"

#include <signal.h>

enum { OUTPUT_LIMIT = 1 << 18 };

typedef enum { NO_FAULT, FAULT_STATUS, FAULT_CUT, FAULT_WRONG } fault;

typedef struct {
    int fd;
    buffer in, out;
    size_t sent;     /* how much of `out` is */
    bool blocked;    /* the client does not read: wait for EPOLLOUT */
    bool closing;    /* close when `out` is sent */
    bool streaming;
    long next_event, events;
    int64_t due, interval;
    size_t place;    /* in the heap, from 1; 0: not there */
    fault fault;
} connection;

static struct {
    const char *host, *model;
    long port, rate, chunks, embedding_bytes;
    bool in_step;
} options = {.host = "127.0.0.1", .model = "m", .chunks = 64, .embedding_bytes = 4096};

static int poller;

/* The streams that have something to send, the most urgent first: a binary heap. */

static connection **heap;
static size_t heap_length, heap_capacity;

static void put(size_t place, connection *c) {
    heap[place] = c;
    c->place = place;
}

static void sift(size_t place) {
    connection *c = heap[place];
    for (; place > 1 && heap[place / 2]->due > c->due; place /= 2) put(place, heap[place / 2]);
    for (;;) {
        size_t child = place * 2;
        if (child > heap_length) break;
        if (child < heap_length && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        put(place, heap[child]);
        place = child;
    }
    put(place, c);
}

static void schedule(connection *c) {
    if (!c->place) {
        if (heap_length + 2 > heap_capacity) {
            heap_capacity = heap_capacity * 2 + 64;
            heap = checked(realloc(heap, heap_capacity * sizeof *heap));
        }
        put(++heap_length, c);
    }
    sift(c->place);
}

static void unschedule(connection *c) {
    size_t place = c->place;
    if (!place) return;
    c->place = 0;
    connection *last = heap[heap_length--];
    if (last == c) return;
    put(place, last);
    sift(place);
}

static long directive(const char *body, size_t length, const char *name, long otherwise) {
    const char *found = memmem(body, length, name, strlen(name));
    return found ? strtol(found + strlen(name), NULL, 10) : otherwise;
}

static fault fault_of(const char *body, size_t length) {
    const char *found = memmem(body, length, "[fault=", 7);
    if (!found) return NO_FAULT;
    if (!strncmp(found + 7, "status]", 7)) return FAULT_STATUS;
    if (!strncmp(found + 7, "cut]", 4)) return FAULT_CUT;
    return FAULT_WRONG;
}

/* Answers. */

static void answer(connection *c, const char *status, const char *type, const char *body, size_t length) {
    appendf(&c->out, "HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\n%s\r\n", status, type, length,
            c->closing ? "connection: close\r\n" : "");
    append(&c->out, body, length);
}

static void answer_json(connection *c, const char *status, buffer *body) {
    size_t length = body->length;
    if (c->fault == FAULT_WRONG) body->data[length / 2] ^= 1;
    answer(c, status, "application/json", body->data, length);
    if (c->fault == FAULT_CUT) {
        c->out.length -= length / 2;
        c->closing = true;
    }
    body->length = 0;
}

static void refuse(connection *c, const char *status, const char *why) {
    static buffer body;
    fprintf(stderr, "engine: answered %s: %s\n", status, why);
    c->closing = true;
    appendf(&body, "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}", why);
    answer_json(c, status, &body);
}

static void answer_chat(connection *c) {
    static buffer body;
    appendf(&body,
            "{\"id\":\"chatcmpl-5ad4f1f0a3f94d6c\",\"object\":\"chat.completion\",\"created\":1700000000,"
            "\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
            "\"content\":\"Hello! How can I help you today?\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
            "\"usage\":{\"prompt_tokens\":31,\"total_tokens\":40,\"completion_tokens\":9}}",
            options.model);
    answer_json(c, "200 OK", &body);
}

/* One vector that makes the answer exactly `wanted` bytes long, give or take what the frame needs at least. */
static void answer_embedding(connection *c, size_t wanted) {
    static buffer body;
    static const char value[] = "-0.0123456789,";
    buffer tail = {0};
    appendf(&body, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[");
    appendf(&tail, "]}],\"model\":\"%s\",\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}", options.model);
    while (body.length + tail.length + 2 * sizeof value < wanted) append(&body, value, sizeof value - 1);
    append(&body, "0.5", 3);
    while (body.length + tail.length < wanted) append(&body, "1", 1);
    append(&body, tail.data, tail.length);
    free(tail.data);
    answer_json(c, "200 OK", &body);
}

static void begin_stream(connection *c, long events, long rate) {
    static uint32_t phase;
    static const char start[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                "transfer-encoding: chunked\r\n\r\n";
    append(&c->out, start, sizeof start - 1);
    c->streaming = true;
    c->next_event = 0;
    c->events = events < 1 ? 1 : events;
    c->interval = rate > 0 ? SECOND / rate : 0;
    c->due = now_ns();
    if (options.in_step && c->interval) {
        c->due += c->interval - c->due % c->interval;
    } else {
        phase += 2654435769u; /* the golden ratio: spreads however many there are */
        c->due += (int64_t)((double)phase / 4294967296.0 * (double)c->interval);
    }
    schedule(c);
}

static void send_event(connection *c) {
    static buffer event;
    bool last = c->next_event == c->events - 1;
    event.length = 0;
    appendf(&event,
            "data: {\"id\":\"chatcmpl-5ad4f1f0a3f94d6c\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
            "\"model\":\"%s\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tok%ld\"},\"logprobs\":null,"
            "\"finish_reason\":%s}]}\n\n",
            options.model, c->next_event, last ? "\"length\"" : "null");
    if (c->fault != FAULT_WRONG || c->next_event != c->events / 2)
        appendf(&c->out, "%zx\r\n%s\r\n", event.length, event.data);
    if (c->fault == FAULT_CUT && c->next_event == c->events / 2) {
        c->streaming = false;
        c->closing = true;
    } else if (last) {
        c->streaming = false;
        appendf(&c->out, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    }
    c->next_event++;
}

static void answer_post(connection *c, const head *h, const char *body, size_t length) {
    if (!is_json_object(body, length)) {
        refuse(c, "400 Bad Request", "the body is not a JSON object");
        return;
    }
    c->fault = fault_of(body, length);
    if (c->fault == FAULT_STATUS) {
        refuse(c, "500 Internal Server Error", "as asked for");
        return;
    }
    const char *stream = member(body, "stream"), *tokens = member(body, "max_tokens");
    if (!tokens || !isdigit((unsigned char)*tokens)) tokens = member(body, "max_completion_tokens");
    if (is(h->target, h->target_length, "/v1/embeddings"))
        answer_embedding(c, (size_t)directive(body, length, "[bytes=", options.embedding_bytes));
    else if (stream && *stream == 't')
        begin_stream(c, tokens ? strtol(tokens, NULL, 10) : options.chunks,
                     directive(body, length, "[rate=", options.rate));
    else
        answer_chat(c);
}

static void answer_get(connection *c, const head *h) {
    static buffer body;
    size_t length = h->target_length;
    if (is(h->target, length, "/v1/models"))
        appendf(&body,
                "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1700000000,"
                "\"owned_by\":\"vllm\",\"root\":\"%s\",\"parent\":null,\"max_model_len\":32768}]}",
                options.model, options.model);
    else if (is(h->target, length, "/metrics")) {
        static const char text[] = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n";
        answer(c, "200 OK", "text/plain; version=0.0.4", text, sizeof text - 1);
        return;
    } else if (is(h->target, length, "/version"))
        appendf(&body, "{\"version\":\"0.0.0\"}");
    else if (is(h->target, length, "/health") || is(h->target, length, "/health_generate"))
        appendf(&body, "{}");
    else if (memmem(h->target, length, "_info", 5)) /* what SGLang's router asks its workers for */
        appendf(&body,
                "{\"model_path\":\"%s\",\"served_model_name\":\"%s\",\"tokenizer_path\":\"\",\"is_generation\":true,"
                "\"dp_size\":1}",
                options.model, options.model);
    else {
        static const char text[] = "{\"error\":{\"message\":\"no such path\",\"type\":\"not_found_error\","
                                   "\"param\":null,\"code\":null}}";
        answer(c, "404 Not Found", "application/json", text, sizeof text - 1);
        return;
    }
    answer_json(c, "200 OK", &body);
}

/* Answers the request at the front of `in`. Returns how many bytes it had, 0 when it isn't complete. */
static size_t answer_one(connection *c) {
    head h = {0};
    ssize_t framed;
    char *end = memmem(c->in.data, c->in.length, "\r\n\r\n", 4);
    if (!end) {
        if (c->in.length > HEAD_LIMIT) refuse(c, "400 Bad Request", "the head is too large");
        return 0;
    }
    end += 4;
    c->fault = NO_FAULT;
    const char *wrong = read_head(&h, c->in.data, end);
    if (wrong && !strncmp(c->in.data, "PRI * HTTP/2.0\r\n", 16)) { /* SGLang's router tries whether we speak it */
        c->closing = true;
        return 0;
    }
    if (wrong) {
        refuse(c, "400 Bad Request", wrong);
        return 0;
    }
    size_t available = c->in.length - (size_t)(end - c->in.data), length = h.content_length;
    framed = h.chunked ? dechunk(end, available, &length) : (ssize_t)length;
    if (framed < 0) refuse(c, "400 Bad Request", "the chunked body");
    if (framed < 0 || (h.chunked && !framed) || (size_t)framed > available) return 0;
    c->closing = !h.keep_alive;
    char behind = end[length];
    end[length] = 0;
    if (is(h.method, h.method_length, "POST"))
        answer_post(c, &h, end, length);
    else if (is(h.method, h.method_length, "GET"))
        answer_get(c, &h);
    else
        refuse(c, "405 Method Not Allowed", "the method");
    end[length] = behind;
    return (size_t)(end - c->in.data) + (size_t)framed;
}

static void answer_requests(connection *c) {
    while (!c->streaming && !c->closing && c->in.length) {
        size_t used = answer_one(c);
        if (!used) return;
        drop_front(&c->in, used);
    }
}

/* Connections. */

static void discard(connection *c) {
    unschedule(c);
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

static void watch(connection *c, bool for_writing) {
    if (c->blocked == for_writing) return;
    c->blocked = for_writing;
    struct epoll_event event = {.events = EPOLLIN | (for_writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

/* Sends what there is. Returns false when the connection is to be discarded. */
static bool flush(connection *c) {
    while (c->sent < c->out.length) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.length - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) return false;
        if (n < 0) {
            watch(c, true);
            return true;
        }
        c->sent += (size_t)n;
    }
    c->sent = c->out.length = 0;
    watch(c, false);
    return !c->closing;
}

/* Puts the next event of a stream that is due on its way; behind the last one, the answer to the next request. */
static bool advance(connection *c, int64_t now) {
    unschedule(c);
    send_event(c);
    c->due = c->interval ? c->due + c->interval : now + 1;
    if (!c->streaming) answer_requests(c);
    if (!flush(c)) return false;
    size_t waiting = c->out.length - c->sent;
    if (c->streaming && waiting < (c->interval ? OUTPUT_LIMIT : 1)) schedule(c); /* else when it can be written to */
    return true;
}

/* Returns false at the end of the connection. */
static bool receive(connection *c) {
    for (;;) {
        reserve(&c->in, 65536);
        ssize_t n = recv(c->fd, c->in.data + c->in.length, c->in.capacity - c->in.length - 1, 0);
        if (n > 0) {
            c->in.length += (size_t)n;
            c->in.data[c->in.length] = 0;
            if (c->in.length > BODY_LIMIT + HEAD_LIMIT) return false;
            if (n < 65536) return true;
            continue;
        }
        return n < 0 && errno == EAGAIN;
    }
}

static bool serve(connection *c, uint32_t events, int64_t now) {
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (!receive(c)) return false;
        answer_requests(c);
    }
    if (!flush(c)) return false;
    if (c->streaming && !c->blocked && !c->place) {
        c->due = now;
        schedule(c);
    }
    return true;
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        no_delay(fd);
        connection *c = checked(calloc(1, sizeof *c));
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) discard(c);
    }
}

static int listen_there(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = address_of(options.host, options.port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        give_up("engine: port %ld: %s", options.port, strerror(errno));
    return listener;
}

static int wait_ms(int64_t now) {
    if (!heap_length) return -1;
    int64_t left = heap[1]->due - now;
    return left <= 0 ? 0 : (int)((left + 999999) / 1000000);
}

static void send_what_is_due(int64_t now) {
    while (heap_length && heap[1]->due <= now)
        if (!advance(heap[1], now)) discard(heap[1]);
}

static void read_options(int count, char **arguments) {
    struct {
        const char *name;
        long *value;
    } numbers[] = {{"--port", &options.port},
                   {"--rate", &options.rate},
                   {"--chunks", &options.chunks},
                   {"--embedding-bytes", &options.embedding_bytes}};
    for (int i = 1; i < count; i++) {
        const char *name = arguments[i], *value = i + 1 < count ? arguments[i + 1] : "";
        bool known = false;
        if (!strcmp(name, "--in-step")) {
            options.in_step = true;
            continue;
        }
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            if (!strcmp(name, numbers[k].name)) {
                *numbers[k].value = number(value, name);
                known = true;
            }
        if (!strcmp(name, "--host")) options.host = value, known = true;
        if (!strcmp(name, "--model")) options.model = value, known = true;
        if (!known) give_up("engine: unknown option %s; its source says which there are", name);
        i++;
    }
    if (!options.port) give_up("engine: --port is missing");
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_there();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event)) give_up("engine: %s", strerror(errno));
    for (;;) {
        int ready = epoll_wait(poller, events, 512, wait_ms(now_ns()));
        int64_t now = now_ns();
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            if (!c)
                accept_all(listener);
            else if (!serve(c, events[i].events, now))
                discard(c);
        }
        send_what_is_due(now);
    }
}
