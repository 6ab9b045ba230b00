/* A load client for measuring proxies: as many keep-alive connections as told, each asking again as soon as it has its
 * answer, every answer checked, and the times as percentiles. One thread.
 *
 *     gcc -O2 -o load load.c && ./load --port 8000 --path /v1/chat/completions --body FILE --connections 32 --seconds 4
 *
 *     --host ADDRESS       127.0.0.1
 *     --port PORT          required
 *     --path PATH          /v1/chat/completions
 *     --body FILE          what is posted; required
 *     --connections N      1
 *     --seconds N          ask for that long, then finish what is under way
 *     --requests N         ask that often; one of the two is required
 *     --timeout N          seconds without a byte on any connection after which it gives up (30)
 *     --hold               ask once on each connection, one after the other, say "ready" on stdout, and keep all of
 *                          them open until stdin ends. None may have been closed by then
 *
 * How an answer is checked, besides its status 200 and its framing; at least one is required:
 *
 *     --answer FILE        the body is exactly this
 *     --contains TEXT      the body has this in it
 *     --events N           the body is a stream of N server-sent events with the texts " tok0", " tok1", ... and a
 *                          data: [DONE]
 *
 * Says one JSON object: requests, events, bytes (of bodies), seconds, reconnects (connections that were closed after
 * an answer), wrong (answers), reason (of the first wrong one), and in microseconds, each with p50, p90, p99 and max:
 * latency_us (a whole answer), first_us (until the first byte of a body), gap_us (between two events of a stream).
 * The exit code is 0 when every answer was right, 1 when one was not, 2 when it could not be run.
 */
#define _GNU_SOURCE
#include "common.h"

#include <ctype.h>
#include <signal.h>

enum { HEAD_LIMIT = 65536, LINE_LIMIT = 4096 };

typedef enum { IDLE, HEAD, LENGTH, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILER } state;

typedef struct {
    int fd; /* -1: not connected */
    state state;
    bool blocked;      /* the proxy doesn't take the rest of the request yet */
    bool close_after;  /* the answer said so */
    size_t sent;       /* of the request */
    size_t remaining;  /* bytes of the body, or of the chunk */
    buffer line;       /* the head, or a line of the chunk framing, as far as it came */
    buffer body;       /* only where it is looked through as a whole */
    size_t body_length;
    buffer event;      /* the beginning of an event */
    long next_event;
    bool done;         /* saw data: [DONE] */
    int64_t started, first, last_event;
} connection;

typedef struct {
    int64_t *values;
    size_t length, capacity;
} series;

static struct {
    const char *host, *path, *body, *answer, *contains;
    long port, connections, seconds, requests, timeout, events;
    bool hold;
} options = {.host = "127.0.0.1", .path = "/v1/chat/completions", .connections = 1, .timeout = 30};

static int poller;
static connection *connections;
static buffer request, expected;
static series latencies, firsts, gaps;
static long started, finished, outstanding, events_seen, bytes_seen, reconnects, wrong;
static char reason[400];
static int64_t deadline, last_byte;

static void note(series *s, int64_t value) {
    if (s->length == s->capacity) {
        s->capacity = s->capacity * 2 + 4096;
        s->values = checked(realloc(s->values, s->capacity * sizeof *s->values));
    }
    s->values[s->length++] = value;
}

static buffer read_file(const char *name) {
    buffer content = {0};
    FILE *file = fopen(name, "rb");
    if (!file) give_up("load: %s: %s", name, strerror(errno));
    for (size_t n = 1; n > 0;) {
        reserve(&content, 65536);
        n = fread(content.data + content.length, 1, 65536, file);
        content.length += n;
    }
    fclose(file);
    return content;
}

/* Connections and requests. */

static void connect_to_proxy(connection *c) {
    struct sockaddr_in address = address_of(options.host, options.port);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
        give_up("load: port %ld: %s", options.port, strerror(errno));
    no_delay(c->fd);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->blocked = false;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) give_up("load: %s", strerror(errno));
}

static void disconnect(connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static bool send_request(connection *c) {
    ssize_t n = 1;
    while (c->sent < request.length && n > 0) {
        n = send(c->fd, request.data + c->sent, request.length - c->sent, MSG_NOSIGNAL);
        if (n > 0) c->sent += (size_t)n;
    }
    if (n < 0 && errno != EAGAIN) return false;
    bool blocked = c->sent < request.length;
    if (blocked != c->blocked) {
        struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
        c->blocked = blocked;
    }
    return true;
}

static void wrong_answer(connection *c, const char *why, const char *detail, size_t length) {
    if (!wrong++) snprintf(reason, sizeof reason, "%s%.*s", why, (int)(length > 300 ? 300 : length), detail);
    disconnect(c);
    c->state = IDLE;
    outstanding--;
}

static bool more_to_ask(void) {
    if (options.requests && started >= options.requests) return false;
    return !options.seconds || now_ns() < deadline;
}

static void ask(connection *c) {
    if (c->fd < 0) connect_to_proxy(c);
    c->state = HEAD;
    c->sent = c->line.length = c->body.length = c->body_length = c->event.length = 0;
    c->next_event = 0;
    c->done = c->close_after = false;
    c->first = c->last_event = 0;
    c->started = now_ns();
    started++;
    outstanding++;
    if (!send_request(c)) wrong_answer(c, "the connection broke while the request was sent", "", 0);
}

/* What an answer says. Each of these returns whether the answer may still be right. */

static bool check_event(connection *c, const char *event, size_t length, int64_t now) {
    static const char end[] = "data: [DONE]";
    if (length == sizeof end - 1 && !memcmp(event, end, length)) {
        c->done = true;
        return true;
    }
    const char *text = memmem(event, length, " tok", 4);
    if (c->done || !text || strncmp(event, "data: ", 6) || strtol(text + 4, NULL, 10) != c->next_event) {
        wrong_answer(c, "not the event that was expected: ", event, length);
        return false;
    }
    if (c->last_event) note(&gaps, now - c->last_event);
    c->last_event = now;
    c->next_event++;
    events_seen++;
    return true;
}

static bool check_events(connection *c, const char *data, size_t length, int64_t now) {
    bool begun = c->event.length > 0;
    if (begun) {
        append(&c->event, data, length);
        data = c->event.data;
        length = c->event.length;
    }
    const char *end, *p = data;
    while ((end = memmem(p, length - (size_t)(p - data), "\n\n", 2))) {
        if (!check_event(c, p, (size_t)(end - p), now)) return false;
        p = end + 2;
    }
    if (begun)
        drop_front(&c->event, (size_t)(p - data));
    else
        append(&c->event, p, length - (size_t)(p - data));
    return true;
}

static bool check_body(connection *c, const char *data, size_t length, int64_t now) {
    if (!c->first) {
        c->first = now;
        note(&firsts, now - c->started);
    }
    bytes_seen += (long)length;
    if (options.answer) {
        bool fits = c->body_length + length <= expected.length;
        if (!fits || memcmp(expected.data + c->body_length, data, length)) {
            wrong_answer(c, "not the body that was expected: ", data, length);
            return false;
        }
    }
    c->body_length += length;
    if (options.contains) append(&c->body, data, length);
    return !options.events || check_events(c, data, length, now);
}

static bool finish(connection *c, int64_t now) {
    const char *text = options.contains;
    const char *why = NULL;
    if (options.answer && c->body_length != expected.length) why = "the body is too short";
    if (text && !memmem(c->body.data, c->body.length, text, strlen(text))) why = "the body lacks the text expected";
    if (options.events && (c->next_event != options.events || !c->done)) why = "the stream ended too early";
    if (why) {
        wrong_answer(c, why, "", 0);
        return false;
    }
    note(&latencies, now - c->started);
    finished++;
    outstanding--;
    c->state = IDLE;
    if (c->close_after) {
        disconnect(c);
        reconnects++;
    }
    return true;
}

/* HTTP: the framing of an answer. */

static bool header_is(const char *line, size_t length, const char *name, const char **value) {
    size_t name_length = strlen(name);
    if (length <= name_length || line[name_length] != ':' || strncasecmp(line, name, name_length)) return false;
    *value = line + name_length + 1;
    while (**value == ' ') ++*value;
    return true;
}

static bool read_head(connection *c) {
    const char *p = c->line.data, *end = p + c->line.length, *value;
    bool has_length = false, chunked = false;
    if (strncmp(p, "HTTP/1.1 200", 12)) {
        wrong_answer(c, "not a 200: ", p, c->line.length);
        return false;
    }
    for (p = strstr(p, "\r\n") + 2; p < end - 2; p = strstr(p, "\r\n") + 2) {
        size_t length = (size_t)(end - p);
        if (header_is(p, length, "content-length", &value)) has_length = true, c->remaining = strtoul(value, NULL, 10);
        if (header_is(p, length, "transfer-encoding", &value)) chunked = !strncasecmp(value, "chunked", 7);
        if (header_is(p, length, "connection", &value)) c->close_after = !strncasecmp(value, "close", 5);
    }
    if (has_length == chunked) {
        wrong_answer(c, "the answer is not framed one way: ", c->line.data, c->line.length);
        return false;
    }
    c->state = chunked ? CHUNK_LINE : LENGTH;
    c->line.length = 0;
    return true;
}

/* A line of the chunk framing is complete, its CRLF included. */
static bool read_line(connection *c, int64_t now) {
    const char *line = c->line.data;
    char *after;
    size_t length = c->line.length;
    c->line.length = 0;
    if (c->state == TRAILER) return length > 2 || finish(c, now);
    if (c->state == CHUNK_END && length == 2) {
        c->state = CHUNK_LINE;
        return true;
    }
    c->remaining = strtoul(line, &after, 16);
    if (c->state == CHUNK_END || !isxdigit((unsigned char)*line) || (*after != '\r' && *after != ';')) {
        wrong_answer(c, "the chunk framing is broken: ", line, length);
        return false;
    }
    c->state = c->remaining ? CHUNK_DATA : TRAILER;
    return true;
}

/* Takes one byte run of the kind the state asks for off the front. Returns how many bytes, 0 when the answer is over. */
static size_t feed_some(connection *c, const char *data, size_t length, int64_t now) {
    if (c->state == LENGTH || c->state == CHUNK_DATA) {
        size_t n = length < c->remaining ? length : c->remaining;
        c->remaining -= n;
        if (!check_body(c, data, n, now)) return 0;
        if (!c->remaining && c->state == LENGTH) finish(c, now);
        if (!c->remaining && c->state == CHUNK_DATA) c->state = CHUNK_END;
        return n;
    }
    const char *found = memchr(data, '\n', length);
    size_t n = found ? (size_t)(found - data) + 1 : length;
    append(&c->line, data, n);
    if (c->line.length > (c->state == HEAD ? HEAD_LIMIT : LINE_LIMIT)) {
        wrong_answer(c, "a line without an end", "", 0);
        return 0;
    }
    if (!found) return n;
    if (c->state == HEAD) {
        bool complete = c->line.length >= 4 && !memcmp(c->line.data + c->line.length - 4, "\r\n\r\n", 4);
        if (complete && !read_head(c)) return 0;
        if (complete && c->state == LENGTH && !c->remaining) finish(c, now);
        return n;
    }
    return read_line(c, now) ? n : 0;
}

static void feed(connection *c, const char *data, size_t length, int64_t now) {
    while (length && c->state != IDLE) {
        size_t n = feed_some(c, data, length, now);
        if (!n) return;
        data += n;
        length -= n;
    }
    if (!length) return;
    if (!wrong++) snprintf(reason, sizeof reason, "bytes behind an answer: %.*s", (int)(length & 255), data);
    disconnect(c);
}

static void receive(connection *c) {
    static char data[1 << 18];
    while (c->fd >= 0) {
        ssize_t n = recv(c->fd, data, sizeof data, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n > 0) {
            last_byte = now_ns();
            feed(c, data, (size_t)n, last_byte);
            if ((size_t)n < sizeof data) return;
        } else if (c->state == IDLE) {
            disconnect(c);
            reconnects++;
        } else {
            bool before = c->state == HEAD && !c->line.length;
            wrong_answer(c, before ? "closed without an answer" : "closed in the middle of an answer", "", 0);
        }
    }
}

/* Runs. */

static void handle(struct epoll_event *event) {
    connection *c = event->data.ptr;
    if (c->state != IDLE && event->events & EPOLLOUT && !send_request(c)) {
        wrong_answer(c, "the connection broke while the request was sent", "", 0);
    } else if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        receive(c);
    }
}

static void wait_for_some(bool ask_again) {
    struct epoll_event events[256];
    int ready = epoll_wait(poller, events, 256, 1000);
    for (int i = 0; i < ready; i++) {
        connection *c = events[i].data.ptr;
        if (!c) continue;
        handle(&events[i]);
        if (ask_again && c->state == IDLE && more_to_ask()) ask(c);
    }
    if (outstanding && now_ns() - last_byte > options.timeout * SECOND) {
        if (!wrong) snprintf(reason, sizeof reason, "no byte came for %ld seconds", options.timeout);
        wrong += outstanding;
        outstanding = 0;
    }
}

static void run(void) {
    for (long i = 0; i < options.connections; i++) connect_to_proxy(&connections[i]);
    last_byte = now_ns();
    deadline = last_byte + options.seconds * SECOND;
    for (long i = 0; i < options.connections && more_to_ask(); i++) ask(&connections[i]);
    while (outstanding) wait_for_some(true);
}

/* Returns whether stdin has not ended yet. */
static bool stdin_is_open(void) {
    char ignored[256];
    struct timespec moment = {.tv_nsec = 20000000};
    nanosleep(&moment, NULL);
    ssize_t n = read(STDIN_FILENO, ignored, sizeof ignored);
    return n > 0 || (n < 0 && errno == EAGAIN);
}

static void hold(void) {
    for (long i = 0; i < options.connections; i++) {
        last_byte = now_ns();
        ask(&connections[i]);
        while (outstanding) wait_for_some(false);
    }
    puts("ready");
    fflush(stdout);
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    while (stdin_is_open()) continue;
    for (long i = 0; i < options.connections; i++) receive(&connections[i]);
    if (reconnects && !wrong) snprintf(reason, sizeof reason, "idle connections were closed");
    wrong += reconnects;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double at(const series *s, double share) {
    return s->length ? (double)s->values[(size_t)(share * (double)(s->length - 1) + 0.5)] / 1e3 : 0;
}

static void print_series(const char *name, series *s) {
    if (s->length) qsort(s->values, s->length, sizeof *s->values, by_value);
    printf(", \"%s\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f}", name, at(s, 0.5), at(s, 0.9),
           at(s, 0.99), at(s, 1));
}

static void print_result(double seconds) {
    printf("{\"requests\": %ld, \"events\": %ld, \"bytes\": %ld, \"seconds\": %.6f, \"reconnects\": %ld, \"wrong\": %ld",
           finished, events_seen, bytes_seen, seconds, reconnects, wrong);
    printf(", \"reason\": \"");
    for (const char *p = reason; *p; p++) {
        if (*p == '"' || *p == '\\') putchar('\\');
        putchar((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e ? ' ' : *p);
    }
    putchar('"');
    print_series("latency_us", &latencies);
    print_series("first_us", &firsts);
    print_series("gap_us", &gaps);
    puts("}");
}

static void read_options(int count, char **arguments) {
    struct {
        const char *name;
        long *number;
        const char **text;
    } known[] = {{"--host", NULL, &options.host},
                 {"--path", NULL, &options.path},
                 {"--body", NULL, &options.body},
                 {"--answer", NULL, &options.answer},
                 {"--contains", NULL, &options.contains},
                 {"--port", &options.port, NULL},
                 {"--connections", &options.connections, NULL},
                 {"--seconds", &options.seconds, NULL},
                 {"--requests", &options.requests, NULL},
                 {"--timeout", &options.timeout, NULL},
                 {"--events", &options.events, NULL}};
    for (int i = 1; i < count; i++) {
        size_t k = 0;
        if (!strcmp(arguments[i], "--hold")) {
            options.hold = true;
            continue;
        }
        while (k < sizeof known / sizeof *known && strcmp(arguments[i], known[k].name)) k++;
        if (k == sizeof known / sizeof *known || i + 1 == count)
            give_up("load: %s is not an option with its value; the source says which there are", arguments[i]);
        const char *value = arguments[++i];
        if (known[k].text) *known[k].text = value;
        if (known[k].number) *known[k].number = number(value, known[k].name);
    }
    if (!options.port || !options.body) give_up("load: --port and --body are required");
    if (!options.hold && !options.seconds == !options.requests) give_up("load: say --seconds or --requests");
    if (!options.answer && !options.contains && !options.events)
        give_up("load: say --answer, --contains or --events: what the answers are checked for");
}

static void prepare_request(void) {
    buffer body = read_file(options.body);
    if (options.answer) expected = read_file(options.answer);
    appendf(&request,
            "POST %s HTTP/1.1\r\nhost: %s:%ld\r\nuser-agent: load\r\naccept: */*\r\nauthorization: Bearer unused\r\n"
            "content-type: application/json\r\ncontent-length: %zu\r\n\r\n",
            options.path, options.host, options.port, body.length);
    append(&request, body.data, body.length);
    free(body.data);
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    prepare_request();
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = checked(calloc((size_t)options.connections, sizeof *connections));
    for (long i = 0; i < options.connections; i++) connections[i].fd = -1;
    int64_t start = now_ns();
    if (options.hold)
        hold();
    else
        run();
    print_result((double)(now_ns() - start) / 1e9);
    return wrong > 0;
}
