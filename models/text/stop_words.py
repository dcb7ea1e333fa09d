"""Words that say little, by language; English has three lists, since each decides something else."""

from __future__ import annotations

FUNCTION_WORDS = frozenset(
    "a about after again all also am an and any are as at be been before being both but by can could did do does doing"
    " during each else for from had has have having he her here hers him his how i if in into is it its just me might"
    " mine more most must my no nor of off on once only or other our ours out over own same shall she should so some"
    " such than that the their theirs them then there these they this those through to too under until up upon us very"
    " was we were what when where whether which while who whom whose why will with within would you your yours".split()
)
"""Words of the closed classes: they give a question its form, not its matter (`models.text.near_duplicates`)."""

QUESTION_WORDS = frozenset(
    "a an and are as at be but by can could do does for from get has have how i if in into is it its may me my not of"
    " on or our should so such than that the their them then there these they this to use used using was we were what"
    " when where which who why will with would you your".split()
)
"""Words of questions that no sentence has to repeat to answer them (`models.serving.answer`)."""


INDEX_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this"
    " to was will with".split()
)
"""Words that no index has (`models.text.tokenize`): Lucene's English ones."""

_WORDS = {
    "ar": (
        "في من على إلى الى عن مع هذا هذه ذلك تلك التي الذي الذين هو هي هم أن ان إن لا ما لم لن قد كان كانت "
        "يكون تكون كل بعض أو او ثم بين بعد قبل عند حتى إذا اذا كما لكن غير أي اي كيف متى أين ماذا لماذا هل "
        "التى منه منها به بها له لها فيه فيها عليه عليها وهو وهي"
    ),
    "bg": (
        "и в на за от с се да не по че са е като до при или ще това този тази тези който която което които има "
        "може бъде бъдат без след преди само още към със във ако когато как какво кой къде защо между както "
        "също чрез него нея"
    ),
    "ca": (
        "el la els les un una uns unes de del dels al als i o que en per amb no es se és són ser pot com més "
        "si ha aquest aquesta aquests aquestes aquell però també quan on què qui seva seu seus seves ho hi li "
        "tots totes entre sense sobre fins molt perquè està estan l d s n"
    ),
    "cs": (
        "a i v ve na o u s se si z ze k ke do od po pro při za že je jsou by byl byla bylo být ale nebo jako "
        "jak co který která které kteří kde kdy kdo proč to ten ta ty tento tato toto tyto této tohoto není "
        "než pokud jen také již podle mezi pod nad před bez jeho její jejich lze bude může mohou můžete "
        "všechny však"
    ),
    "da": (
        "og i at det den de en et er som på til af for med ikke om der fra var har have kan vil skal ved så "
        "hvis eller men man sig blive bliver blev dette denne disse efter under over hvor hvad hvem hvorfor "
        "hvordan når også kun kunne mellem deres hans hendes du jeg vi mig dig ingen alle være da end"
    ),
    "de": (
        "der die das den dem des ein eine einen einem einer eines und oder aber nicht ist sind war waren wird "
        "werden wurde wurden sein hat haben kann können muss müssen soll sollen in im an am auf aus bei mit "
        "nach von vom zu zum zur für über unter vor durch ohne um als wie wenn dass daß ob so auch nur noch "
        "schon mehr man sich es er sie wir ihr ich du dies diese dieser dieses diesem diesen jede jeder jedes "
        "alle was wer wo wann warum welche welcher welches da dort hier ihre ihrer ihren seine seiner seinen "
        "bis sowie bzw"
    ),
    "el": (
        "ο η το οι τα του της των τον την τους τις και κι ή να θα δεν μη μην που πως πώς ότι αν για από με σε "
        "στο στη στην στον στα στους στις ως είναι ήταν έχει έχουν μπορεί αυτό αυτή αυτός αυτά αυτές αυτοί ένα "
        "ένας μια μία όταν όπως αλλά τι ποιος ποια ποιο πού πότε γιατί μετά πριν μόνο κάθε όλα όλες"
    ),
    "es": (
        "el la los las un una unos unas de del al a y e o u que en por para con sin no se es son ser fue ha "
        "han hay está están este esta estos estas ese esa esos esas esto eso aquel lo le les su sus como más "
        "pero si sí también cuando donde dónde qué quién cuál cómo cuándo desde hasta entre sobre muy ya todo "
        "todos todas cada otro otra otros puede pueden sea cual cuales porque según mediante"
    ),
    "et": (
        "ja on ei et see kui oma või ka aga mis ta ning oli siis nii kes kus mida selle seda need neid nende "
        "olla ole pole kuid üks ühe kõik kuidas miks millal juba veel ainult nagu sest saab võib peab pärast "
        "enne ma sa me te"
    ),
    "eu": (
        "eta da ez du dira bat bere hau hori edo ere izan zen baina dute den egin nola zer non noiz nor zein "
        "dago beste dituzte ditu batean baten behar bezala gabe hauek horiek oso arte bai"
    ),
    "fa": (
        "و در به از که این است را با برای آن یک می ها های شود شده کند کنید تا یا هم بر اگر نیست باشد بود هر "
        "آیا چه چرا کجا کی چگونه خود ما شما او من دارد دارند دیگر پس اما نیز همه بین روی"
    ),
    "fi": (
        "ja on ei se että tai kun jos niin ovat oli myös mutta kuin sen joka jotka mitä mikä missä milloin "
        "miksi miten kuka tämä tämän nämä ne niiden hän hänen he minä sinä me te ole olla olisi voi voidaan "
        "vain sekä jossa jonka jota joita tästä tässä siitä siinä ilman kanssa kaikki ennen jälkeen vaan joko "
        "eikä eivät"
    ),
    "fr": (
        "le la les l un une des de du d au aux et ou où que qui quoi dont ce cet cette ces il elle ils elles "
        "on nous vous je tu se s ne n pas plus en dans par pour avec sans sous sur est sont être été était a "
        "ont avoir ait soit comme si mais aussi leur leurs son sa ses notre votre vos tout tous toute toutes "
        "lors lorsque quand comment pourquoi quel quelle quels quelles entre vers chez y même cela ceci peut "
        "peuvent doit très"
    ),
    "ga": (
        "agus an na ar is go le do sa i de ag tá nach bhfuil ach ní seo sin a ó faoi mar nó gan chun leis aige "
        "acu bhí beidh cad cé conas cathain cén gach idir"
    ),
    "hi": (
        "का के की में है हैं और से को पर ने एक यह वह इस उस ये वे जो कि नहीं भी हो था थी थे कर करने करें लिए तो "
        "ही या अगर यदि क्या कैसे कब कहाँ कहां कौन क्यों जब तक साथ बाद पहले अपने अपना अपनी गया किया होता होती "
        "होते रहा रहे रही सकता सकते कुछ"
    ),
    "hr": (
        "i u na je se da za od su s sa kao ne o iz ili koji koja koje kako što bi ali po do će samo može više "
        "kada gdje tko ovaj ova ovo taj ta to nije biti bio bila između nakon prije ako također već prema "
        "kojim kojih njihov svoje sve"
    ),
    "hu": (
        "a az és hogy nem is egy van volt ez ezt azt csak vagy ha de mint meg el ki be fel le már még minden "
        "amely amelyek amelyet aki ami lehet kell után előtt között alatt során szerint mert mit mi hol mikor "
        "miért hogyan ezek azok ennek annak nincs lesz majd illetve valamint pedig én te ő"
    ),
    "hy": (
        "և է են որ ու չի մի այս այդ այն կամ իր համար հետ մեջ վրա ինչ ով երբ որտեղ ինչպես եթե բայց էր էին ես "
        "դու նա մենք դուք նրանք բոլոր պետք կարող"
    ),
    "id": (
        "yang dan di ke dari untuk dengan pada ini itu tidak adalah atau akan dapat oleh sebagai juga dalam "
        "ada bisa jika karena tersebut lebih seperti saya anda kami kita dia mereka apa siapa mana kapan "
        "mengapa bagaimana telah sudah harus agar antara setelah sebelum hanya setiap bila"
    ),
    "it": (
        "il lo la i gli le un uno una di del dello della dei degli delle a al allo alla ai agli alle da dal "
        "dalla dai dalle in nel nello nella nei nelle su sul sulla sui sulle con per tra fra e ed o che chi "
        "cui non si se è sono essere stato ha hanno avere può possono questo questa questi queste quello "
        "quella come più ma anche quando dove cosa quale quali perché suo sua suoi sue loro ogni tutti tutte "
        "viene vengono deve ci ne"
    ),
    "lt": (
        "ir yra kad su į iš bet kaip tai o jis ji jie ne ar už per po nuo iki prie apie šis ši kuris kuri "
        "kurie buvo būti gali turi jei kai kur kas kodėl tik dar jau taip pat visi arba tarp prieš"
    ),
    "mr": (
        "आहे आहेत आणि या हे ही हा तो ती ते च्या ने ला मध्ये नाही किंवा होते होता होती करा करून साठी पण जर तर काय "
        "कसे कधी कुठे कोण वर पासून एक त्या त्यांच्या"
    ),
    "ne": (
        "र छ छन् को मा का ले लाई यो त्यो पनि हो भने गर्न गर्ने भएको हुन्छ हुने लागि एक तथा वा अनि के कसरी कहाँ "
        "कहिले किन यस उनी तर सबै बाट"
    ),
    "nl": (
        "de het een en of van in op te aan met voor door bij uit naar over om tot dat die dit deze is zijn was "
        "waren wordt worden werd niet geen ook maar als dan wel er hij zij ze je u we wij ik hun haar kan "
        "kunnen moet zal wil heeft hebben wat wie waar wanneer waarom hoe welke nog al meer alleen zoals "
        "indien zonder onder tussen elk alle dus"
    ),
    "no": (
        "og i at det den de en et er som på til av for med ikke om fra var har kan vil skal ved så hvis eller "
        "men man seg bli blir ble dette denne disse etter under over hvor hva hvem hvorfor hvordan når også "
        "bare kunne mellom deres hans hennes du jeg vi meg deg ingen alle være da enn noe noen hver mot"
    ),
    "pl": (
        "i w we z ze na do o od po za przez dla przy nie to jest są się że jak co lub oraz ale czy który która "
        "które których którego jako być był była było tego ten ta te tym tych jego jej ich może można gdy "
        "jeśli kiedy gdzie kto dlaczego tylko także już bez pod nad między też aby ani by jeżeli więc każdy "
        "nich"
    ),
    "pt": (
        "o a os as um uma uns umas de do da dos das em no na nos nas por pelo pela pelos pelas para com sem e "
        "ou que se não é são ser foi ao aos à às este esta estes estas esse essa esses essas isto isso ele ela "
        "eles elas seu sua seus suas como mais mas também quando onde quem qual quais porque até entre sobre "
        "já muito cada todo todos todas pode podem deve há está estão tem têm você"
    ),
    "ro": (
        "și şi în la de cu pe din un o a al ale ai să nu este sunt care ce că pentru sau dar mai se fi fost "
        "era prin după până dacă cum când unde cine această acest aceste acestea acesta lui ei lor despre "
        "între fără doar numai poate pot va vor fie iar le îl"
    ),
    "ru": (
        "и в во не на он она оно они я мы вы ты что чтобы с со как а то все всё это этот эта эти этого этой "
        "этих так его её ее их но да к ко у же за бы по только было был была были быть есть для от из о об при "
        "или если когда где кто чем который которая которое которые которого которых до без под над между "
        "также может можно нет ли уже через после перед какой какая какие почему зачем сколько"
    ),
    "sk": (
        "a i v vo na o u s so sa si z zo k ku do od po pre pri za že je sú by bol bola bolo byť ale alebo ako "
        "čo ktorý ktorá ktoré ktorí kde kedy kto prečo to ten tá tie tento táto toto tieto tejto tohto nie než "
        "ak iba tiež už podľa medzi pod nad pred bez jeho jej ich možno bude môže môžu"
    ),
    "sr": (
        "и у на је се да за од су са као не о из или који која које како што би али по до ће само може више "
        "када где ко овај ова ово тај та то није бити био била између након пре ако такође већ према којим "
        "којих све"
    ),
    "sv": (
        "och i att det den de en ett är som på till av för med inte om från var har kan vill ska skall vid så "
        "eller men man sig bli blir blev detta denna dessa efter under över hur vad vem varför när också bara "
        "kunde mellan deras hans hennes du jag vi mig dig ingen alla vara då än någon något där samt utan mot "
        "eftersom"
    ),
    "ta": (
        "ஒரு மற்றும் இந்த என்று என அந்த இது அது ஆகும் உள்ள ஆனால் அல்லது இல்லை என்ன எப்படி எங்கே எப்போது யார் ஏன் அவர் நான் நீங்கள் "
        "மேலும் போன்ற கொண்டு வேண்டும் இருந்து"
    ),
    "tr": (
        "ve bir bu da de için ile ne o olarak çok daha en gibi kadar olan var ya veya mı mi mu mü değil ise şu "
        "her hem ki ama ancak sonra önce göre nasıl neden nerede kim hangi ben sen biz siz onlar bunu bunun "
        "tarafından üzerinde içinde eğer yok olur olduğu edilir eder"
    ),
    "uk": (
        "і й та в у на з із зі що не до як за по про це цей ця ці від для або але чи є був була було були бути "
        "може можна при якщо який яка яке які якого яких його її їх він вона воно вони ми ви я ти коли де хто "
        "чому так також тільки вже між під над після перед через без цього цієї"
    ),
    "ur": (
        "کے کی کا میں ہے ہیں اور سے کو پر نے ایک یہ وہ اس جو کہ نہیں بھی ہو تھا تھی تھے کر کرنے لیے تو ہی یا "
        "اگر کیا کیسے کب کہاں کون کیوں جب تک ساتھ بعد"
    ),
    "vi": (
        "và của là có không được các trong một cho với những này đó để khi từ người đã sẽ cũng như về nếu hoặc "
        "nhưng tại theo trên vào ra bạn tôi gì ai đâu nào sao bởi bị do phải đến thì mà hay"
    ),
}
STOP_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
"""Words of the closed classes by ISO 639-1 code, without English. Published lists have words of content too (Alir3z4's
stop-words and stopwords-iso, as of 2026: water, Monday, door), which a search must not lose."""

UNSPACED_STOP_WORDS = frozenset(
    (
        "的 了 是 在 和 与 或 这 那 个 不 我 你 他 她 它 们 之 其 及 也 都 就 为 以 被 把 让 對 对 吗 呢 吧 么 "
        "什么 怎么 如何 哪里 這 個 們 為 嗎 甚麼 です ます した する して たい ない なに どう どこ から まで "
        "では には とは のか すか この その あの これ それ ある いる なる ため こと もの は が を に の と で "
        "へ も や か"
    ).split()
)
"""Function words of Chinese and Japanese, of one or two characters."""
