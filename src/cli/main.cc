// The `cachalot` program: parses the command line, runs one command, turns errors into an exit
// status: 0 done, 1 failed, 2 wrong usage.
#include <fcntl.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>

#include "base/error.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/suggest.h"
#include "runtime/runtime.h"

namespace cachalot::cli {

namespace {

constexpr const char* kDescription =
    "Cachalot trains, serves and plans DeepSeek-V3-class models.\n"
    "Results go to stdout, messages and progress to stderr. Exit status: 0 done, 1 failed, 2 wrong "
    "usage.";

void add_shared_flags(CLI::App& app, Globals& globals) {
  app.add_option("--threads", globals.threads,
                 "Threads to compute with; 0 takes $CACHALOT_THREADS, else one per core")
      ->check(CLI::Range(0, runtime::kMaxThreads))
      ->type_name("N");
  app.add_option("--device", globals.device,
                 "Where to compute: cpu, or cuda (a Hopper GPU; cuda:N for the one with number N) "
                 "(unless $CACHALOT_DEVICE is set, cpu)")
      ->type_name("cpu|cuda");
  app.add_option("--pin", globals.pin,
                 "Hold threads to cores: auto (where the machine is ours; unless $CACHALOT_PIN is "
                 "set), on or off")
      ->check(CLI::IsMember({"auto", "on", "off"}))
      ->type_name("auto|on|off");
  app.add_option(
         "--weights", globals.weights,
         "Weights as they lie in the mapped file, copied into huge pages, or copied in the order "
         "in "
         "which products read them: more memory and a later start, faster passes. auto: packed for "
         "commands that go on for long (serve, chat, bench of passes and serve) where two thirds "
         "of the "
         "free memory hold them, else mapped (unless $CACHALOT_WEIGHTS is set, auto)")
      ->check(CLI::IsMember({"auto", "mapped", "copied", "packed"}))
      ->type_name("auto|mapped|copied|packed");
  app.add_flag("--json", globals.json, "Print one JSON object instead of text");
}

// What a message quotes of a file may hold anything: no escape sequence reaches the terminal.
int report(std::string text, int status) {
  for (char& c : text) {
    const auto code = static_cast<unsigned char>(c);
    if ((code < 0x20 && c != '\n' && c != '\t') || code == 0x7F) c = '?';
  }
  std::fprintf(stderr, "cachalot: %s\n", text.c_str());
  return status;
}

// Where a standard stream was closed, the next file that is opened would have its number, and what
// is printed would go into that file. The number is taken by one that can neither be read nor
// written as the stream would be, so that a result that nobody can have is still an error.
void occupy_closed_streams() {
  for (;;) {
    const int fd = ::open("/dev/null", O_WRONLY);
    if (fd < 0) return;
    if (fd > STDERR_FILENO) {
      ::close(fd);
      return;
    }
    if (fd == STDIN_FILENO) continue;
    ::close(fd);
    if (::open("/dev/null", O_RDONLY) != fd) return;
  }
}

void set_up_log() {
  auto logger = spdlog::stderr_color_mt("cachalot");
  logger->set_pattern("%^%l%$: %v");
  spdlog::set_default_logger(std::move(logger));
}

// Words that a shell would take apart or change are quoted.
std::string command_line(int argc, char** argv) {
  static constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%";
  std::string line = "cachalot";
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    line += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

int run(int argc, char** argv) {
  Globals globals;
  globals.command_line = command_line(argc, argv);
  CLI::App app(kDescription, "cachalot");
  app.option_defaults()->always_capture_default();
  app.get_formatter()->column_width(36);
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.set_version_flag("--version", std::string("cachalot ") + kVersion,
                       "Print the version and exit");
  app.require_subcommand(1);
  add_shared_flags(app, globals);
  add_train(app, globals);
  add_generate(app, globals);
  add_chat(app, globals);
  add_serve(app, globals);
  add_context(app, globals);
  add_eval(app, globals);
  add_forward(app, globals);
  add_tokenize(app, globals);
  add_init(app, globals);
  add_convert(app, globals);
  add_verify(app, globals);
  add_info(app, globals);
  add_plan(app, globals);
  add_network(app, globals);
  add_bench(app, globals);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    const int status = app.exit(e);
    flush_output();
    return status;
  } catch (const CLI::ParseError& e) {
    return report(explain(app, e), 2);
  }
  // Whoever makes a Runtime or loads a model in this process reads them there.
  if (!globals.device.empty()) setenv("CACHALOT_DEVICE", globals.device.c_str(), 1);
  if (!globals.pin.empty()) setenv("CACHALOT_PIN", globals.pin.c_str(), 1);
  if (!globals.weights.empty()) setenv("CACHALOT_WEIGHTS", globals.weights.c_str(), 1);
  globals.action();
  flush_output();
  return 0;
}

}  // namespace

CLI::App* add_command(CLI::App& parent, Globals& globals, const std::string& name,
                      const std::string& description) {
  CLI::App* command = parent.add_subcommand(name, description);
  add_shared_flags(*command, globals);
  return command;
}

int guarded_main(int argc, char** argv) {
  occupy_closed_streams();
  // A reader that goes away must not kill a run that also writes files; print() sees EPIPE.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // past a file size limit: an error with a text, not a death
  set_up_log();
  try {
    return run(argc, argv);
  } catch (const ClosedPipe&) {
    return 0;
  } catch (const Error& e) {
    return report(e.what(), exit_status(e.code()));
  } catch (const std::bad_alloc&) {
    return report(
        "out of memory. Use a smaller model, context or batch, or a machine with more memory.", 1);
  } catch (const std::filesystem::filesystem_error& e) {  // the system's doing, whoever asked
    return report(cat(e.path1().string(), ": ", e.code().message(), " (", e.what(), ")."), 1);
  } catch (const std::exception& e) {
    return report(cat("internal error: ", e.what(), ". This is a defect; please report it."), 1);
  }
}

}  // namespace cachalot::cli

int main(int argc, char** argv) { return cachalot::cli::guarded_main(argc, argv); }
